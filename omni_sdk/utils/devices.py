"""What the machine says about its accelerators, without loading any of their libraries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NVIDIA_FIELDS = (
    *("name", "driver_version", "compute_cap", "memory.total", "memory.free", "power.limit"),
    *("clocks.max.sm", "clocks.max.memory", "clocks.sm"),
)
"""Queried from nvidia-smi, one value each; memory in MiB."""
_TOOL_SECONDS = 10.0


def nvidia_device(device: str) -> dict[str, str]:
    """Return nvidia-smi's description of "cuda:N"; empty for the CPU or without the tool."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return {}
    query = ["nvidia-smi", f"--query-gpu={','.join(NVIDIA_FIELDS)}", "--format=csv,noheader"]
    lines = tool_output([*query, f"--id={index or 0}"]).strip().splitlines()
    values = [v.strip() for v in lines[0].split(",")] if lines else []
    if len(values) != len(NVIDIA_FIELDS):
        return {}
    return dict(zip(NVIDIA_FIELDS, values, strict=True))


def free_device_bytes(device: str) -> int | None:
    """Return the free memory of "cuda:N" in bytes, or None where it is not known."""
    value, _, unit = nvidia_device(device).get("memory.free", "").partition(" ")
    return int(value) << 20 if value.isdigit() and unit == "MiB" else None


def free_host_bytes() -> int | None:
    """Return the host memory that can be had without swapping (Linux), or None."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) << 10 if found else None


def tool_output(command: list[str]) -> str:
    """Return what a tool prints; "" where it is missing, fails or takes too long."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TOOL_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout
