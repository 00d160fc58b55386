"""The machine that numbers belong to: what is readable without rights, and nothing about its user."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

from omni_sdk import native
from omni_sdk._version import __version__
from omni_sdk.bench.report import EnvironmentReport
from omni_sdk.utils.devices import nvidia_device, tool_output

PACKAGES = ("numpy", "av", "tokenizers", "onnxruntime", "onnxruntime-gpu", "tensorrt", "torch")


def environment(device: str) -> EnvironmentReport:
    """Describe this machine.

    Args:
        device: "cpu" or "cuda:N": the accelerator that is described, if any.
    """
    return EnvironmentReport(
        machine=platform.machine(),
        cpu=_cpu_name(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cpu_count(),
        system=f"{platform.system()} {platform.release()}",
        clocks=_cpu_clocks() | _board_mode(),
        device=nvidia_device(device),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        threads=os.environ.get("OMP_NUM_THREADS"),
        versions=_versions(),
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        native=native.state(),
    )


def _cpu_count() -> int:
    return os.cpu_count() or 1


def _cpu_name() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _cpu_clocks() -> dict[str, str]:
    folder = "/sys/devices/system/cpu/cpu0/cpufreq"
    names = ("scaling_governor", "scaling_min_freq", "scaling_max_freq")
    return {n: v for n in names if (v := _read(f"{folder}/{n}").strip())}


def _board_mode() -> dict[str, str]:
    """Return the power mode of a Jetson, as `nvpmodel -q` prints it."""
    mode = " ".join(tool_output(["nvpmodel", "-q"]).split())
    return {"nvpmodel": mode} if mode else {}


def _versions() -> dict[str, str]:
    found = {"omni-sdk": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
