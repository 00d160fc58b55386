"""One job in a process of its own: `python -m omni_training.experiment.process FOLDER JOB`."""

from __future__ import annotations

import sys
from pathlib import Path

from omni_training.experiment.files import Experiment
from omni_training.experiment.jobs import run_job


def main() -> None:
    """Do the job in one thread."""
    import torch

    torch.set_num_threads(1)
    folder, name = sys.argv[1:3]
    run_job(Experiment.open(Path(folder)), name)


if __name__ == "__main__":
    main()
