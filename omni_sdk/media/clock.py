"""The clock between the reasoner's seconds and the source's frames.

The authors' checkpoints see N sampled frames as a *virtual* 2 fps video ("N/2 seconds"), whatever the
real duration, and index = min(int(t * 2), N - 1) (Omni-R1 reference code, load_datasets/revos.py). A real
clock is the other choice: the reasoner's seconds are the source's. Every time a user sees is real.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Clock:
    """Maps the reasoner's seconds <-> sampled index <-> real frame index and seconds.

    Attributes:
        frame_indices: (N,) int64 presentation-order index of each sampled frame in the source.
        pts_seconds: (N,) float64 its presentation time, from the source's first frame, ascending.
        end_seconds: real end of the sampled span (the source's duration), >= pts_seconds[-1].
        virtual_fps: frames per second the reasoner is told; None: it is told real times.
    """

    frame_indices: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    end_seconds: float
    virtual_fps: float | None = 2.0

    def __post_init__(self) -> None:
        if len(self.frame_indices) == 0 or len(self.frame_indices) != len(self.pts_seconds):
            raise ValueError(
                "a clock needs as many frame indices as times and at least one, got "
                f"{len(self.frame_indices)} and {len(self.pts_seconds)}"
            )

    @property
    def num_frames(self) -> int:
        """Number of sampled frames N."""
        return len(self.frame_indices)

    @property
    def duration_seconds(self) -> float:
        """Length of the clip as the reasoner is told it."""
        if self.virtual_fps is None:
            return float(self.end_seconds)
        return self.num_frames / self.virtual_fps

    def _knots(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Reasoner's times and real times of the N sampled frames and of the end."""
        real = np.append(self.pts_seconds, max(self.end_seconds, self.pts_seconds[-1]))
        if self.virtual_fps is None:
            return real, real
        return np.arange(self.num_frames + 1) / self.virtual_fps, real

    def sample_at(self, seconds: float) -> int:
        """Return the sampled index that shows a moment of the reasoner's clock, clamped to the clip."""
        if self.virtual_fps is not None:
            index = int(seconds * self.virtual_fps)
        else:
            index = int(np.searchsorted(self.pts_seconds, seconds, side="right")) - 1
        return min(max(index, 0), self.num_frames - 1)

    def frame_at(self, seconds: float) -> int:
        """Return the source's frame index that shows a moment of the reasoner's clock."""
        return int(self.frame_indices[self.sample_at(seconds)])

    def to_real(self, seconds: float) -> float:
        """Map the reasoner's seconds to the source's; exact at sampled frames, linear in between."""
        told, real = self._knots()
        return float(np.interp(seconds, told, real))

    def to_told(self, seconds: float) -> float:
        """Map the source's seconds to the reasoner's: the inverse of `to_real`."""
        told, real = self._knots()
        return float(np.interp(seconds, real, told))
