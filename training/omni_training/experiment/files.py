"""Where an experiment keeps what."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_sdk.utils.files import put_folder, write_text

from omni_training.experiment.settings import (
    SHARD_CLIPS,
    START,
    ExperimentError,
    ExperimentSettings,
    load_settings,
    settings_text,
)


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment's folder.

    Attributes:
        folder: holds experiment.json, train/ARM/SEED, answers, scores, logs and report.
        settings: as in experiment.json.
    """

    folder: Path
    settings: ExperimentSettings

    @classmethod
    def create(cls, folder: Path, settings: ExperimentSettings) -> Experiment:
        """Begin, or go on with, an experiment.

        Raises:
            ExperimentError: the folder holds an experiment with other settings.
        """
        path, text = folder / "experiment.json", settings_text(settings)
        if path.is_file():
            if path.read_text(encoding="utf-8") != text:
                raise ExperimentError(
                    f"{path} holds an experiment with other settings; give another --out"
                )
        else:
            write_text(path, text)
        return cls(folder, settings)

    @classmethod
    def open(cls, folder: Path) -> Experiment:
        """Open an experiment that `create` began; ExperimentError if there is none."""
        path = folder / "experiment.json"
        if not path.is_file():
            raise ExperimentError(f"{folder} holds no experiment.json")
        value = json.loads(path.read_text(encoding="utf-8"))
        return cls(folder, load_settings(None, **value))

    def train(self, model: str) -> Path:
        """Return the folder of a trained model's run, "ARM/SEED"."""
        return self.folder / "train" / model

    def checkpoint(self, model: str) -> Path:
        """Return the checkpoint directory of a model; for the start, the caller's own."""
        return Path(self.settings.start) if model == START else self.train(model) / "model"

    def record(self, model: str) -> Path:
        """Return the file with a run's curves and cost."""
        return self.train(model) / "training.json"

    def answers(self, model: str) -> Path:
        """Return the file with a model's answers."""
        return self.folder / "answers" / f"{model.replace('/', '-')}.json"

    def scores(self, judge: str, shard: int) -> Path:
        """Return the file with a judge's scores of one shard of the clips."""
        return self.folder / "scores" / f"{judge}-{shard:02d}.json"

    @property
    def shards(self) -> list[list[str]]:
        """The held-out clips in pieces that are judged one by one."""
        clips = self.settings.clips()
        return [clips[i : i + SHARD_CLIPS] for i in range(0, len(clips), SHARD_CLIPS)]


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def put_model(trainer: Any, start: Path, target: Path) -> None:
    """Save a trained thinker as a checkpoint directory of the start's layout, whole or not at all."""
    aside = target.with_name(f"{target.name}.incomplete")
    shutil.rmtree(aside, ignore_errors=True)
    trainer.save_model(str(aside))
    for name in ("tokenizer.json", "preprocessor_config.json", "generation_config.json"):
        if (start / name).is_file():
            shutil.copyfile(start / name, aside / name)
    put_folder(aside, target)
