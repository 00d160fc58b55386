"""Peak memory of the process, and memory and power of an NVIDIA device while something runs."""

from __future__ import annotations

import contextlib
import re
import resource
import shutil
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
    """Samples `nvidia-smi`, on Jetson `tegrastats`, in the background: peak memory, mean power.

    On Jetson memory is shared with the host: what is sampled is that of the whole board, and so is power.
    Status: neither was run on a device; tests feed lines of the documented form.

    Args:
        device: "cuda:N"; for anything else, or where the tool is missing, nothing is sampled.

    Attributes:
        memory_mb: samples of memory in use, of all processes, in MiB.
        watts: samples of power draw, where the device reports it.
    """

    def __init__(self, device: str) -> None:
        kind, _, index = device.partition(":")
        self._index = int(index or 0) if kind == "cuda" else None
        self._parse = parse_nvidia_smi
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
        if (
            shutil.which("tegrastats") is not None
        ):  # nvidia-smi is there on newer boards, but knows little
            command, self._parse = ["tegrastats", "--interval", str(_SAMPLE_MS)], parse_tegrastats
        else:
            command = ["nvidia-smi", "--query-gpu=memory.used,power.draw"]
            command += ["--format=csv,noheader,nounits", f"--id={self._index}"]
            command += [f"--loop-ms={_SAMPLE_MS}"]
        with contextlib.suppress(OSError):
            self._tool = subprocess.Popen(
                command,
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
            memory, watts = self._parse(line)
            if memory is not None:
                self.memory_mb.append(memory)
            if watts is not None:
                self.watts.append(watts)


def parse_nvidia_smi(line: str) -> tuple[float | None, float | None]:
    """Return MiB and watts of a line "100, 50.0"; None where it says "[N/A]" or something else."""
    found: list[float | None] = [None, None]
    for i, text in enumerate(line.split(",")[:2]):
        with contextlib.suppress(ValueError):
            found[i] = float(text)
    return found[0], found[1]


def parse_tegrastats(line: str) -> tuple[float | None, float | None]:
    """Return MiB in use and watts of the board of a line of tegrastats.

    Rails are "NAME 4912mW/4990mW" (now / mean). VDD_IN is the whole module where there is such a rail
    (Orin NX and Nano); on AGX boards the rails are added up.
    """
    memory = re.search(r"\bRAM ([0-9]{1,9})/", line)
    rails = {name: int(mw) for name, mw in re.findall(r"\b([A-Z0-9_]+) ([0-9]{1,9})mW/", line)}
    total = rails.get("VDD_IN", sum(rails.values()))
    return float(memory[1]) if memory else None, total / 1e3 if rails else None
