"""Peak memory of the process, and memory and power of an NVIDIA device while something runs."""

from __future__ import annotations

import contextlib
import resource
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

_STATUS = Path("/proc/self/status")
_SAMPLE_MS = 100


def reset_host_peak() -> bool:
    """Forget the process's peak memory so far; return whether the kernel allows it (Linux: see proc(5))."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def host_memory_mb(field: str = "VmRSS") -> float | None:
    """Return resident memory in MiB: "VmRSS" now, "VmHWM" its peak.

    Elsewhere than on Linux the peak of the whole process stands for both.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return None


class DeviceSampler:
    """Samples `nvidia-smi` in the background: peak memory and mean power of one device.

    Args:
        device: "cuda:N"; for anything else, or where the tool is missing, nothing is sampled.

    Attributes:
        memory_mb: samples of memory in use, of all processes, in MiB.
        watts: samples of power draw, where the device reports it.
    """

    def __init__(self, device: str) -> None:
        kind, _, index = device.partition(":")
        self._index = int(index or 0) if kind == "cuda" else None
        self._tool: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.memory_mb: list[float] = []
        self.watts: list[float] = []

    @property
    def peak_mb(self) -> float | None:
        """Peak memory in use; None without samples."""
        return max(self.memory_mb, default=None)

    @property
    def mean_watts(self) -> float | None:
        """Mean power draw; None without samples."""
        return statistics.fmean(self.watts) if self.watts else None

    def __enter__(self) -> DeviceSampler:
        if self._index is None:
            return self
        command = ["nvidia-smi", "--query-gpu=memory.used,power.draw"]
        command += ["--format=csv,noheader,nounits", f"--id={self._index}"]
        with contextlib.suppress(OSError):
            self._tool = subprocess.Popen(
                [*command, f"--loop-ms={_SAMPLE_MS}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tool is None or self._reader is None:
            return
        self._tool.terminate()
        try:
            self._tool.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._tool.kill()
            self._tool.wait()
        self._reader.join(timeout=5)

    def _read(self) -> None:
        assert self._tool is not None
        assert self._tool.stdout is not None
        for line in self._tool.stdout:
            memory, _, power = line.partition(",")
            with contextlib.suppress(ValueError):  # "[N/A]" where the device does not report it
                self.memory_mb.append(float(memory))
            with contextlib.suppress(ValueError):
                self.watts.append(float(power))
