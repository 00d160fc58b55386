"""TMRoPE: the time, height and width position of every token of a prompt.

Upstream: `get_rope_index` of Qwen2_5OmniThinkerModel. Text takes one step per token on all three axes. A
medium spreads over the axes from the position after the text before it; its sound takes one step per
token, its rows in time `position_id_per_seconds` steps per second; the text goes on one past the greatest
position of the last run of tokens. Sound interleaved with a video starts where the video starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.grs.mel import num_audio_tokens
from omni_sdk.media.pixels.patch_layout import Grid

if TYPE_CHECKING:
    from omni_sdk.bundle.manifest import DecoderSpec, TokenSpec

Positions = NDArray[np.int64]


def row_times(num_rows: int, seconds_per_grid: float, decoder: DecoderSpec) -> Positions:
    """Return the (num_rows,) int64 time position of each temporal row of a video, from 0.

    In float32 as upstream, so that a row on the edge of two steps falls where it does there.
    """
    rows = np.arange(num_rows, dtype=np.float32) * np.float32(seconds_per_grid)
    return (rows * np.float32(decoder.position_id_per_seconds)).astype(np.int64)


def interleave(
    row_positions: Positions, tokens_per_row: int, num_audio: int, decoder: DecoderSpec
) -> list[tuple[int, int]]:
    """Return (video tokens, audio tokens) of each chunk in time of a video shown with its sound.

    A chunk spans `seconds_per_chunk`; its video tokens come before its audio tokens. A token at or past
    the end of a chunk opens the next one, whatever that one's own end (upstream: get_chunked_index): where
    rows lie further apart than a chunk, the first tokens of a row are chunks of their own.

    Args:
        row_positions: as `row_times`.
        tokens_per_row: merged tokens of one temporal row.
        num_audio: audio tokens, one per position.
        decoder: steps per second and seconds per chunk.
    """
    steps = max(1, int(decoder.position_id_per_seconds * decoder.seconds_per_chunk))
    video = _chunk_sizes(np.repeat(row_positions, tokens_per_row), steps)
    audio = _chunk_sizes(np.arange(num_audio), steps)
    length = max(len(video), len(audio))
    video += [0] * (length - len(video))
    audio += [0] * (length - len(audio))
    return list(zip(video, audio, strict=True))


def _chunk_sizes(positions: Positions, steps: int) -> list[int]:
    """Return the length of each chunk of ascending positions."""
    starts = [0]
    while True:
        # The first position past the chunk's end, but not the one that opened the chunk.
        start = max(starts[-1] + 1, int(np.searchsorted(positions, len(starts) * steps)))
        if start >= len(positions):
            return [int(size) for size in np.diff([*starts, len(positions)])]
        starts.append(start)


def rope_positions(
    input_ids: Positions,
    tokens: TokenSpec,
    decoder: DecoderSpec,
    *,
    merge_size: int,
    image_grids: Sequence[Grid] = (),
    video_grids: Sequence[tuple[Grid, float]] = (),
    audio_frames: Sequence[int] = (),
    audio_in_video: bool = False,
) -> Positions:
    """Return the (3, S) int64 positions of one unpadded prompt.

    The next token after the prompt stands at `positions.max() + 1` on all axes.

    Args:
        input_ids: (S,) int64 with media placeholders expanded (`omni_sdk.grs.chat`).
        tokens: ids of placeholders and brackets.
        decoder: steps per second.
        merge_size: patches per side of one token.
        image_grids: grid of each image, in order.
        video_grids: grid and seconds_per_grid of each video, in order.
        audio_frames: mel frames of each sound, in order.
        audio_in_video: a vision bracket that opens with an audio bracket holds a video and its sound.

    Raises:
        ValueError: the placeholders do not fit the media.
    """
    walk = _Walk(np.asarray(input_ids, np.int64))
    # Positions of each medium from 0, in order of the placeholders.
    images = [_grid_positions(g, np.zeros(g[0], np.int64), merge_size) for g in image_grids]
    videos = [
        _grid_positions(g, row_times(g[0], seconds, decoder), merge_size)
        for g, seconds in video_grids
    ]
    sounds = [np.tile(np.arange(num_audio_tokens(frames)), (3, 1)) for frames in audio_frames]
    single = {tokens.image: images, tokens.video: videos, tokens.audio: sounds}
    ids = walk.ids
    while walk.index < len(ids):
        token = int(ids[walk.index])
        if (
            audio_in_video
            and token == tokens.vision_start
            and walk.index + 1 < len(ids)
            and ids[walk.index + 1] == tokens.audio_start
        ):
            walk.bracket()
            if not videos or not sounds:
                raise ValueError("the prompt holds more videos with sound than were given")
            walk.media({tokens.video: videos.pop(0), tokens.audio: sounds.pop(0)})
            walk.bracket()
        elif token in single:
            if not single[token]:
                raise ValueError(f"the prompt holds more media of token {token} than were given")
            walk.media({token: single[token].pop(0)})
        else:
            walk.text()
    if left := len(images) + len(videos) + len(sounds):
        raise ValueError(f"{left} of the media given have no place in the prompt")
    return walk.positions


class _Walk:
    """Hands out positions from the first token to the last."""

    def __init__(self, ids: Positions) -> None:
        self.ids = ids
        self.index = 0
        self.next = 0
        self.positions = np.empty((3, len(ids)), np.int64)

    def text(self) -> None:
        """One token, one step."""
        self.positions[:, self.index] = self.next
        self.index += 1
        self.next += 1

    def bracket(self) -> None:
        """Two brackets that share one position."""
        if self.index + 2 > len(self.ids):
            raise ValueError("the prompt ends inside a video with sound")
        self.positions[:, self.index : self.index + 2] = self.next
        self.index += 2
        self.next += 1

    def media(self, media: dict[int, Positions]) -> None:
        """One medium, or a video and its sound: runs of their tokens in any order until both end."""
        used = dict.fromkeys(media, 0)
        start, last = self.next, self.next - 1
        while any(used[token] < positions.shape[1] for token, positions in media.items()):
            token = int(self.ids[self.index]) if self.index < len(self.ids) else -1
            if token not in media:
                raise ValueError(
                    f"expected {sum(p.shape[1] for p in media.values())} placeholders, found "
                    f"{sum(used.values())}"
                )
            stop = self.index
            while stop < len(self.ids) and self.ids[stop] == token:
                stop += 1
            # Two media of one kind may touch (upstream allows no brackets): the rest is the next one's.
            count = min(stop - self.index, media[token].shape[1] - used[token])
            if count == 0:
                raise ValueError(f"more placeholders {token} than the medium has tokens")
            run = media[token][:, used[token] : used[token] + count] + start
            self.positions[:, self.index : self.index + count] = run
            self.index += count
            used[token] += count
            last = int(run.max())
        self.next = last + 1


def _grid_positions(grid: Grid, times: Positions, merge_size: int) -> Positions:
    """Return (3, t * h * w / merge^2) positions of a grid's tokens, from 0."""
    rows, columns = grid[1] // merge_size, grid[2] // merge_size
    shape = (grid[0], rows, columns)
    axes = (times[:, None, None], np.arange(rows)[:, None], np.arange(columns))
    return np.stack([np.broadcast_to(axis, shape).ravel() for axis in axes])
