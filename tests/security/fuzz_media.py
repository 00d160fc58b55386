"""Mutated media files through the whole media layer, each in a process that may die.

    python tests/security/fuzz_media.py --count 2400          # the full run
    python tests/security/fuzz_media.py --seconds 15          # what the test suite does

Every file must end in one `OmniError`, or in frames for which returned + missing = promised, whose walks
forward and backward agree with the sampled frames, within the wall time and memory. Prints outcomes by
kind of mutation and by file; exits with 1 and names the files (kind/name/seed) when one broke a promise.

Outcomes:
    error       one typed OmniError
    whole       every frame there and equal to the unspoiled file's
    flagged     frames are missing, or differ, and the result says so (truncated, missing, corrupt)
    undetected  the damage made a valid file of other pictures, or of fewer; nothing can tell
    BROKEN      untyped error, crash, hang, too much memory, or counts and walks that disagree
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import itertools
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from mutations import MUTATIONS, mutate, write_corpus

OUTCOMES = ("error", "whole", "flagged", "undetected", "BROKEN")
WALL_SECONDS = 60.0  # per file, in the parent; the SDK's own limit below is what should stop it
SDK_WALL_SECONDS = 20.0
MEMORY_BYTES = 400 << 20  # growth of a worker's peak over its start, over all of its files
MAX_LOOKED_AT = 200
Case = tuple[str, str, int]


def cases(names: list[str], start: int) -> Iterator[Case]:
    """Yield (name, kind, seed), every file and kind in turn, without end."""
    for seed in itertools.count(start):
        for name in names:
            for kind in MUTATIONS:
                yield name, kind, seed


class Examiner:
    """The worker's side: knows the unspoiled frames, judges a spoiled file."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        from omni_sdk.media.limits import MediaLimits

        self.limits = MediaLimits(
            max_pixels=1_000_000,
            max_frames=20_000,
            max_batch_bytes=64 << 20,
            max_audio_seconds=600.0,
            max_duration_seconds=7200.0,
            max_wall_seconds=SDK_WALL_SECONDS,
        )
        self.corpus = {name: (folder / name).read_bytes() for name in names}
        self._keeps_state = False
        self.clean: dict[str, list[str | None]] = {}
        for name in names:
            seen, flags, _ = self.look(folder / name, None)
            if flags:
                raise AssertionError(f"{name}: the unspoiled file is flagged: {flags}")
            self.clean[name] = seen

    def look(
        self, path: Path, clean: list[str | None] | None
    ) -> tuple[list[str | None], list[str], list[int]]:
        """Read a file in every way; return its frames' digests (None: missing), flags, corrupt frames.

        Args:
            path: the file.
            clean: the unspoiled frames: a way must not lose one that another way gives. None: this is
                the unspoiled file.

        Raises:
            OmniError: the file cannot be used.
            AssertionError: the ways disagree.
        """
        from omni_sdk.errors import MediaError
        from omni_sdk.media.source import open_source

        with open_source(path, limits=self.limits) as video:
            count = len(video)
            looked = min(count, MAX_LOOKED_AT)
            walked = {f.frame_index: digest(f.image) for f in video.forward(0, looked)}
            try:
                batch = video.sample(indices=range(looked))
                frames = [int(i) for i in batch.frame_indices]
                sampled = {i: digest(f) for i, f in zip(frames, batch.frames, strict=True)}
                assert len(batch) + len(batch.missing) == looked, "returned + missing != promised"
                assert set(batch.corrupt) <= set(frames), "corrupt frames that are not there"
            except MediaError:  # none of them can be decoded
                sampled = {}
            assert set(walked) | set(video.missing) >= set(range(looked)), "a walk lost frames"
            backward = {f.frame_index: digest(f.image) for f in video.backward(looked - 1, -1)}
            corrupt = set(video.corrupt)
            for other, way in ((walked, "forward"), (backward, "backward")):
                for index in set(other) | set(sampled):
                    pair = {other.get(index), sampled.get(index)}
                    # What fills a damaged frame may depend on where decoding started; a sound one not.
                    sound = clean is None or (len(clean) == count and clean[index] in pair)
                    if len(pair) > 1 and sound and not (clean and self._keeps_state):
                        assert index in corrupt | set(video.missing), f"{way}, {index} differs"
            sound = video.audio()
            if sound is not None:
                assert sound.samples.ndim == 1, "sound of another shape"
            info = video.info
            flags = [
                n for n in ("truncated", "missing_frames", "corrupt_frames") if getattr(info, n)
            ]
            return [sampled.get(i) for i in range(looked)], flags, sorted(corrupt)

    def judge(self, name: str, path: Path) -> tuple[str, str]:
        """Return (outcome, detail) of a spoiled file."""
        from omni_sdk.errors import OmniError

        # FFV1's decoder, which tells of no damage, fills from what it decoded before, over a flush too.
        self._keeps_state = name == "ffv1.mkv"
        try:
            seen, flags, corrupt = self.look(path, self.clean[name])
        except OmniError as e:
            if "\n" in str(e):
                return "BROKEN", "the message has several lines"
            return "error", type(e).__name__
        except BaseException as e:
            where = traceback.extract_tb(e.__traceback__)[-1]
            return "BROKEN", f"{type(e).__name__}: {e} ({Path(where.filename).name}:{where.lineno})"
        clean = self.clean[name]
        if seen == clean:
            return ("flagged", "as before") if flags else ("whole", "")
        known = set(clean)
        strange = [i for i, d in enumerate(seen) if d is not None and d not in known]
        if not set(strange) <= set(corrupt):
            return "undetected", "other pictures" + (", flagged elsewhere" if flags else "")
        if len(seen) < len(clean) and not flags:
            return "undetected", "fewer frames"
        return ("flagged", ",".join(flags)) if flags else ("undetected", "other times or order")


def digest(image) -> str:
    """Return a short hash of an image's shape and bytes."""
    return hashlib.blake2b(image.tobytes() + repr(image.shape).encode(), digest_size=8).hexdigest()


def work(folder: Path, names: list[str]) -> None:
    """Judge the files named on stdin, one JSON line each way."""
    examiner = Examiner(folder, names)
    start = peak_bytes()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, kind, seed = json.loads(line)
        path = folder / f"case-{os.getpid()}{Path(name).suffix}"
        path.write_bytes(mutate(name, kind, seed, examiner.corpus))
        outcome, detail = examiner.judge(name, path)
        if peak_bytes() - start > MEMORY_BYTES:
            outcome, detail = "BROKEN", f"memory: {(peak_bytes() - start) >> 20} MiB"
            start = peak_bytes()
        print(json.dumps([outcome, detail, peak_bytes() >> 20]), flush=True)
        path.unlink()


def peak_bytes() -> int:
    """Return the process's peak resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """One child process; started again after a crash or a hang."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        command = [sys.executable, __file__, "--work", str(folder), *names]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._answer(120.0) != "ready":
            raise RuntimeError(f"the worker did not start: {self._process.communicate()[1]}")

    def judge(self, case: Case) -> tuple[str, str]:
        """Hand a case over; a silent or dead child is an outcome too."""
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        answer = self._answer(WALL_SECONDS)
        if answer is None:
            code = self._process.poll()
            self.close()
            return "BROKEN", "hang" if code is None else f"crash (exit code {code})"
        return answer[0], answer[1]

    def _answer(self, seconds: float):
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(5)
            return None
        return json.loads(line)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.communicate()


def run(count: int, seconds: float, start: int, only: str | None) -> list[tuple[Case, str, str]]:
    """Judge `count` cases or as many as fit into `seconds`."""
    found: list[tuple[Case, str, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = [n for n in write_corpus(folder) if only is None or only in n]
        worker = Worker(folder, names)
        started = time.monotonic()
        for case in itertools.islice(cases(names, start), count):
            if time.monotonic() - started > seconds:
                break
            if not worker.alive:
                worker = Worker(folder, names)
            found.append((case, *worker.judge(case)))
        worker.close()
    return found


def table(found: list[tuple[Case, str, str]], column: int, title: str) -> str:
    """Return counts of outcomes by kind (column 1) or file (column 0)."""
    counts = collections.Counter((case[column], outcome) for case, outcome, _ in found)
    lines = [f"{title:<14}" + "".join(f"{o:>12}" for o in OUTCOMES) + f"{'all':>8}"]
    for row in [*dict.fromkeys(case[column] for case, _, _ in found), "all"]:
        cells = [
            sum(n for (r, o), n in counts.items() if o == outcome and row in (r, "all"))
            for outcome in OUTCOMES
        ]
        lines.append(f"{row:<14}" + "".join(f"{c:>12}" for c in cells) + f"{sum(cells):>8}")
    return "\n".join(lines)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--only", help="only files whose name holds this")
    parser.add_argument("--case", help="one KIND/NAME/SEED: judge it in this process")
    parser.add_argument("--json", type=Path, help="also write every outcome here")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(Path(arguments.work[0]), arguments.work[1:])
        return 0
    if arguments.case:
        kind, name, seed = arguments.case.split("/")
        with tempfile.TemporaryDirectory() as scratch:
            examiner = Examiner(Path(scratch), write_corpus(Path(scratch)))
            path = Path(scratch) / f"case{Path(name).suffix}"
            path.write_bytes(mutate(name, kind, int(seed), examiner.corpus))
            print(*examiner.judge(name, path))
        return 0
    found = run(arguments.count, arguments.seconds, arguments.start, arguments.only)
    print(table(found, 1, "mutation"), table(found, 0, "file"), sep="\n\n")
    details = collections.Counter((o, d) for _, o, d in found if o != "BROKEN" and d)
    print("\n" + "\n".join(f"{n:>6}  {o}: {d}" for (o, d), n in details.most_common()))
    broken = [(case, detail) for case, outcome, detail in found if outcome == "BROKEN"]
    for (name, kind, seed), detail in broken:
        print(f"BROKEN {kind}/{name}/{seed}: {detail}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
