"""TensorRT plan files and where they are kept: pure file work, nothing here loads TensorRT.

A plan is a plain file that trtexec reads too. Beside it lies NAME.json, which says for what it was built. A
plan is native code, so it is only ever taken from the cache directory, which must belong to this user and to
nobody else, and only when everything it depends on is as wanted: that is found out from the side-car before
TensorRT sees a byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omni_sdk.errors import EngineError
from omni_sdk.graphs.profiles import Profile, profiles_text
from omni_sdk.utils import schema
from omni_sdk.utils.files import cache_folder, write_bytes

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle

logger = logging.getLogger(__name__)

RECORD_VERSION = 1
DEFAULT_MAX_BYTES = 50 << 30
_LOCK_SECONDS = 3600.0
_MODE = 0o600  # nobody else may change native code, whatever the umask


@dataclass(frozen=True, slots=True)
class BuildFlags:
    """What the builder is told. Precision is no flag: it is in the graph (strongly typed networks).

    Attributes:
        workspace_mb: scratch memory that a layer may use, in MiB.
        optimization_level: 0 (fast build) to 5 (fast engine).
    """

    workspace_mb: int = 2048
    optimization_level: int = 3

    def __post_init__(self) -> None:
        if self.workspace_mb < 1 or not 0 <= self.optimization_level <= 5:
            raise ValueError(f"need workspace_mb >= 1 and optimization_level 0..5, got {self}")


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything that a plan depends on.

    Attributes:
        graph: its name in the manifest.
        files: SHA-256 of the graph's file and of its data files, in order.
        tensorrt: version of the library.
        compute_capability: of the device, e.g. "8.7".
        system: operating system and processor, e.g. "linux-aarch64".
        profiles: name and shapes of each, as JSON text.
        flags: of the builder, as JSON text.
    """

    graph: str
    files: tuple[str, ...]
    tensorrt: str
    compute_capability: str
    system: str
    profiles: str
    flags: str

    @property
    def digest(self) -> str:
        """SHA-256 of the key in hexadecimal: the plan's file name."""
        return hashlib.sha256(json.dumps(schema.to_dict(self)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """What NAME.json says of NAME.plan."""

    record_version: int
    key: PlanKey
    plan_bytes: int
    plan_sha256: str


def plan_key(
    bundle: Bundle,
    graph: str,
    profiles: Sequence[Profile],
    flags: BuildFlags,
    *,
    tensorrt: str,
    compute_capability: str,
) -> PlanKey:
    """Return the key of a graph's plan on this machine."""
    spec = bundle.graph(graph)
    hashes = tuple(bundle.manifest.files[f].sha256 for f in (spec.file, *spec.data))
    return PlanKey(
        graph=graph,
        files=hashes,
        tensorrt=tensorrt,
        compute_capability=compute_capability,
        system=f"{platform.system().lower()}-{platform.machine()}",
        profiles=profiles_text(profiles),
        flags=json.dumps(schema.to_dict(flags)),
    )


def differences(wanted: PlanKey, found: PlanKey) -> list[str]:
    """Return what keeps a plan from being used, as lines "what: expected x, found y"."""
    lines = []
    for name in PlanKey.__slots__:
        a, b = getattr(wanted, name), getattr(found, name)
        if a == b:
            continue
        if name in ("files", "profiles"):
            lines.append(f"{name}: not those of this bundle")
        else:
            lines.append(f"{name}: expected {a}, found {b}")
    return lines


def timing_cache_path(directory: Path, *, tensorrt: str, compute_capability: str) -> Path:
    """Return the file of measured kernels; times of another TensorRT or device must not be mixed in."""
    return directory / f"timing-{tensorrt}-{compute_capability}.cache"


def plan_directory() -> Path:
    """Return the directory of plans: "plans" in the cache directory."""
    return cache_folder("plans")


def private_directory(directory: Path) -> None:
    """Make a directory for native code, or check one.

    Raises:
        EngineError: it belongs to somebody else, or others may write to it.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EngineError(
            f"{directory}: plans are native code; expected a directory of this user that nobody "
            f"else can write to, found owner {status.st_uid}, mode {status.st_mode & 0o777:o}; "
            f"run: chmod 700 {directory}"
        )


class PlanCache:
    """A directory of plans with a size cap; the least recently used go first.

    Args:
        directory: made if it is missing.
        max_bytes: cap on the plans together.

    Raises:
        EngineError: the directory belongs to somebody else, or others may write to it.
    """

    def __init__(self, directory: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        private_directory(directory)

    def find(self, key: PlanKey) -> bytes | None:
        """Return a plan's bytes, checked against its record, or None.

        A pair of files that does not fit (interrupted, altered) is removed and counts as absent.
        """
        record = self._record(self._side_car(key))
        if record is None or record.key != key:
            return None
        path = self._plan(key)
        try:
            plan = path.read_bytes()
        except OSError:
            plan = b""
        if len(plan) != record.plan_bytes or _sha256(plan) != record.plan_sha256:
            logger.warning("%s: not as its record says; removed", path)
            self._remove(path)
            return None
        with contextlib.suppress(OSError):
            # By our own clock: the kernel's goes in steps of milliseconds, in which two loads would be one.
            os.utime(path, ns=(time.time_ns(),) * 2)
        return plan

    def latest(self, key: PlanKey, free: Collection[str]) -> PlanKey | None:
        """Return the key of the plan built or used last among those that differ from a key in `free` alone.

        Args:
            key: what is wanted.
            free: fields of the key that may have any value, of "profiles" and "flags": they decide what a
                plan can take and how fast it is, not whether it runs here.
        """
        usable = []
        for path in self.directory.glob("*.json"):
            record = self._record(path)
            if record is None:
                continue
            found = record.key
            if replace(found, **{name: getattr(key, name) for name in free}) != key:
                continue
            with contextlib.suppress(OSError):  # without its plan a record is no use
                usable.append((self._plan(found).stat().st_mtime_ns, found.digest, found))
        return max(usable)[2] if usable else None

    def store(self, key: PlanKey, plan: bytes) -> Path:
        """Write a plan, then its record, each at once; make room by removing others.

        Raises:
            EngineError: the plan alone is larger than the cap, or the disk refuses it.
        """
        if len(plan) > self._max_bytes:
            raise EngineError(
                f"{key.graph}: a plan of {len(plan)} bytes is larger than the cache may be "
                f"({self._max_bytes}); raise --cache-gb"
            )
        record = PlanRecord(RECORD_VERSION, key, len(plan), _sha256(plan))
        path = self._plan(key)
        try:
            write_bytes(path, plan, mode=_MODE)
            text = json.dumps(schema.to_dict(record), indent=1)
            write_bytes(self._side_car(key), text.encode(), mode=_MODE)
        except OSError as e:
            raise EngineError(
                f"{path}: cannot be written ({e}); free space or move the cache"
            ) from e
        self._shrink(keep=path)
        return path

    def explain(self, key: PlanKey) -> str:
        """Say why there is no plan for a key: what was found for the same graph, and what differs."""
        records = [r for p in self.directory.glob("*.json") if (r := self._record(p)) is not None]
        near = [r.key for r in records if r.key.graph == key.graph]
        if not near:
            return f"no plan of {key.graph} in {self.directory}"
        closest = min((differences(key, k) for k in near), key=len)
        if not closest:
            return f"the plan of {key.graph} in {self.directory} was incomplete and is removed"
        return f"the plan of {key.graph} in {self.directory} does not fit ({'; '.join(closest)})"

    @contextlib.contextmanager
    def building(self, key: PlanKey, timeout_seconds: float = _LOCK_SECONDS) -> Iterator[None]:
        """Hold the key's lock: of two processes that want to build, the second waits, then finds the plan.

        The lock ends with the process that holds it, however that ends.

        Raises:
            EngineError: another process has held it for longer than the timeout.
        """
        path = self.directory / f"{key.digest}.lock"
        deadline = time.monotonic() + timeout_seconds
        with path.open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise EngineError(
                            f"{key.graph}: another process has been building this plan for over "
                            f"{timeout_seconds:.0f} s (lock {path}); wait for it, or end it"
                        ) from None
                    time.sleep(min(0.1, timeout_seconds / 10))
            # Under the lock nobody writes this plan: what a killed process began to write is swept.
            for left in self.directory.glob(f".{key.digest}.*"):
                logger.info("%s: left by a process that was killed; removed", left)
                left.unlink(missing_ok=True)
            yield

    def _plan(self, key: PlanKey) -> Path:
        return self.directory / f"{key.digest}.plan"

    def _side_car(self, key: PlanKey) -> Path:
        return self.directory / f"{key.digest}.json"

    def _record(self, path: Path) -> PlanRecord | None:
        try:
            value = json.loads(path.read_bytes())
            record = schema.from_dict(PlanRecord, value)
        except (OSError, ValueError, RecursionError):
            return None
        return record if record.record_version == RECORD_VERSION else None

    def _remove(self, plan: Path) -> None:
        for path in (plan.with_suffix(".json"), plan):
            path.unlink(missing_ok=True)

    def _shrink(self, keep: Path) -> None:
        plans = []
        for path in self.directory.glob("*.plan"):
            with contextlib.suppress(OSError):  # another process may remove it meanwhile
                status = path.stat()
                plans.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in plans)
        for _, size, path in sorted(plans):
            if total <= self._max_bytes:
                break
            if path != keep:
                logger.info("%s: removed to make room", path)
                self._remove(path)
                total -= size


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
