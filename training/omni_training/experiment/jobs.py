"""The work as jobs: each a process of its own that leaves one file. Jobs that are done are not done again."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omni_training.experiment.files import Experiment
from omni_training.experiment.settings import ARMS, CONTROL, FULL, ExperimentError

POLL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Attributes:
        name: "train/ARM/SEED", "answer/MODEL" or "judge/JUDGE/SHARD".
        output: the file that tells that it is done.
        needs: names of jobs that must be done before.
    """

    name: str
    output: Path
    needs: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the output is there; outputs appear whole."""
        return self.output.is_file()


def all_jobs(experiment: Experiment) -> dict[str, Job]:
    """Return every job by name, in an order in which they can be done."""
    settings = experiment.settings
    jobs: list[Job] = []
    for seed in settings.seeds:
        # The control takes its compute from the full arm, which therefore comes first.
        for arm in (FULL, CONTROL, *(a for a in ARMS if a != FULL)):
            needs = (f"train/{FULL}/{seed}",) if arm == CONTROL else ()
            model = f"{arm}/{seed}"
            jobs.append(Job(f"train/{model}", experiment.record(model), needs))
    for model in settings.models():
        needs = (f"train/{model}",) if "/" in model else ()
        jobs.append(Job(f"answer/{model}", experiment.answers(model), needs))
    answers = tuple(job.name for job in jobs if job.name.startswith("answer/"))
    jobs += [
        Job(f"judge/{judge}/{shard}", experiment.scores(judge, shard), answers)
        for judge in settings.judges
        for shard in range(len(experiment.shards))
    ]
    return {job.name: job for job in jobs}


def run_job(experiment: Experiment, name: str) -> None:
    """Do one job in this process.

    Raises:
        ExperimentError: there is no such job.
    """
    if name not in all_jobs(experiment):
        raise ExperimentError(f"no job {name!r} in {experiment.folder}")
    kind, _, rest = name.partition("/")
    if kind == "train":
        arm, _, seed = rest.rpartition("/")
        if arm == CONTROL:
            from omni_training.experiment.control import train_control

            train_control(experiment, int(seed))
        else:
            from omni_training.experiment.arm import train_arm

            train_arm(experiment, arm, int(seed))
    elif kind == "answer":
        from omni_training.experiment.answers import write_answers

        write_answers(experiment, rest)
    else:
        from omni_training.experiment.judge import judge_shard

        judge, _, shard = rest.rpartition("/")
        judge_shard(experiment, judge, int(shard))


def run_all(experiment: Experiment, *, jobs: int = 1, tell: Callable[[str], None] = print) -> None:
    """Do what is left, several jobs at a time, each in one thread of its own process.

    Args:
        experiment: the experiment.
        jobs: processes at a time, at least 1.
        tell: receives a line for each job that begins or ends.

    Raises:
        ExperimentError: a job failed (the others are stopped; its log's end is in the message), or another
            process works on this folder.
    """
    if jobs < 1:
        raise ExperimentError(f"--jobs: expected at least 1, got {jobs}")
    table = all_jobs(experiment)
    done = {name for name, job in table.items() if job.done}
    tell(f"{len(done)} of {len(table)} jobs are done")
    running: dict[str, subprocess.Popen[bytes]] = {}
    with _only_one(experiment.folder):
        try:
            while len(done) < len(table):
                for name, job in table.items():
                    ready = name not in done and name not in running and done.issuperset(job.needs)
                    if ready and len(running) < jobs:
                        running[name] = _start(experiment, name)
                        tell(f"begin {name}")
                time.sleep(POLL_SECONDS)
                for name in [n for n, p in running.items() if p.poll() is not None]:
                    code = running.pop(name).returncode
                    if code or not table[name].done:
                        raise ExperimentError(_failure(experiment, name, code))
                    done.add(name)
                    tell(f"done  {name} ({len(done)} of {len(table)})")
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()


def log_path(experiment: Experiment, name: str) -> Path:
    """Return where a job's output goes."""
    return experiment.folder / "logs" / f"{name.replace('/', '-')}.log"


def _start(experiment: Experiment, name: str) -> subprocess.Popen[bytes]:
    path = log_path(experiment, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "omni_training.experiment.process"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    with path.open("ab") as log:
        return subprocess.Popen(
            [*command, str(experiment.folder), name],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _failure(experiment: Experiment, name: str, code: int) -> str:
    path = log_path(experiment, name)
    lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    return f"job {name} ended with code {code}: {last} (log: {path})"


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder; the lock goes with the process, however it ends."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise ExperimentError(f"another process works on {folder}") from e
        yield
