"""What an evaluation is: which samples, which models, which options. Plain values, sent to any worker."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omni_sdk.config import ModelOptions, PipelineConfig, check_types
from omni_sdk.datasets import SPLITS, mevis, open_dataset, refavs, refvos, revos
from omni_sdk.datasets.records import Sample
from omni_sdk.errors import OptionError
from omni_sdk.pipeline import Pipeline

DEFAULT_SPLITS = {
    revos.NAME: "valid",
    mevis.NAME: "valid_u",
    refvos.YOUTUBE: "valid",
    refvos.DAVIS17: "valid",
    refavs.NAME: "test_s",
}

FRAMES_PER_SECOND = {
    refavs.NAME: 1.0,  # ten frames of ten seconds
    refvos.DAVIS17: 24.0,
    refvos.YOUTUBE: 6.0,  # every fifth frame of 30
    mevis.NAME: 6.0,  # no rate is published; 79 frames for 13.2 seconds, on average
    revos.NAME: 6.0,  # of several origins, no rate is published
}
"""Rate of each data set's frames. It decides how many frames a reasoner is shown and, where its clock is the
real one, the times it is told; masks and scores do not depend on it otherwise."""

OBJECT_VALUES = {revos.NAME: 1}
"""What a prediction's pixels hold where the object is, 255 unless named here: the official script of ReVOS
computes A and R on the stored values (see `omni_sdk.metrics.revos`)."""

_NAMED = ("num_frames", "audio", "max_keyframes", "temperature", "seed", "encode_ahead")
"""Options that `Options.identity` names otherwise, and one that changes no answer."""


@dataclass(frozen=True, slots=True)
class Models:
    """Which models answer, and how they are loaded."""

    bundle: str = "nano"
    options: ModelOptions = field(default_factory=ModelOptions)

    def load(self) -> Pipeline:
        """Load them.

        Raises:
            OmniError: as `Pipeline.from_pretrained`.
        """
        return Pipeline.from_options(self.bundle, self.options)

    def identity(self) -> dict[str, Any]:
        """Return what tells these models from others, without loading them."""
        from omni_sdk.bundle.bundle import MANIFEST
        from omni_sdk.bundle.hub import resolve

        options = self.options
        directory = resolve(
            self.bundle, revision=options.revision, local_files_only=options.local_files_only
        )
        manifest = directory / MANIFEST
        found = manifest.is_file()
        value: dict[str, Any] = {
            "name": directory.name,
            "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest() if found else None,
            "tracker": None if options.tracker is None else Path(options.tracker).name,
        }
        # Named only where they are given, so that runs from before there were such options go on.
        if options.variant:
            value["variant"] = list(options.variant)
        if options.memory_budget is not None:
            value["memory_budget"] = options.memory_budget
        return value


@dataclass(frozen=True, slots=True)
class Options:
    """What changes the answers.

    Attributes:
        fps: rate of the frames, above 0, up to 1000; None: the data set's, `FRAMES_PER_SECOND`.
        pipeline: of the pipeline. With `on_parse_error` "empty" an unreadable answer becomes an empty mask;
            otherwise it is a failure, which scores 0.
        object_value: of a prediction's pixels, 1 or 255; None: what the data set's evaluator wants.
    """

    fps: float | None = None
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    object_value: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.object_value not in (None, 1, 255):
            raise OptionError(f"object_value must be 1, 255 or None, got {self.object_value!r}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise OptionError(f"fps must be above 0, up to 1000, got {self.fps!r}")

    def identity(self) -> dict[str, Any]:
        """Return the options by which the answers of two runs may differ.

        Those that every run names have the names that runs were written with; all others are named where they
        are not the defaults, so that a run from before there was such an option goes on.
        """
        asked = self.pipeline
        value: dict[str, Any] = {
            "fps": self.fps,
            "frames": asked.sampling.num_frames,
            "audio": asked.sampling.audio,
            "keyframes": asked.tracking.max_keyframes,
            "temperature": asked.generation.temperature,
            "seed": asked.generation.seed,
            "allow_unparsed": asked.on_parse_error == "empty",
            "object_value": self.object_value,
        }
        usual = PipelineConfig()
        for part in ("sampling", "generation", "tracking"):
            given, default = getattr(asked, part), getattr(usual, part)
            for name in (f.name for f in dataclasses.fields(given)):
                if name not in _NAMED and getattr(given, name) != getattr(default, name):
                    value[f"{part}.{name}"] = getattr(given, name)
        return value


@dataclass(frozen=True, slots=True)
class Plan:
    """One evaluation.

    Attributes:
        dataset: a key of `omni_sdk.datasets.SPLITS`.
        root: the data set's folder.
        split: as the data set names it.
        out: folder for predictions, records and results. Workers on other machines need it, and `root`,
            at the same path.
        models: that answer.
        options: that change the answers.
    """

    dataset: str
    root: str
    split: str
    out: str
    models: Models = field(default_factory=Models)
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if self.split not in SPLITS.get(self.dataset, ()):
            known = "; ".join(f"{name}: {', '.join(splits)}" for name, splits in SPLITS.items())
            raise OptionError(
                f"expected a data set and its split ({known}), got {self.dataset!r} {self.split!r}"
            )

    @property
    def predictions(self) -> Path:
        """Folder of the predictions, in the official format."""
        return Path(self.out) / "predictions"

    @property
    def fps(self) -> float:
        """Rate of the frames."""
        return self.options.fps or FRAMES_PER_SECOND[self.dataset]

    @property
    def object_value(self) -> int:
        """Value of a prediction's pixels where the object is."""
        return self.options.object_value or OBJECT_VALUES.get(self.dataset, 255)

    def samples(self) -> tuple[Sample, ...]:
        """Read the split's samples; see `read_samples`."""
        return read_samples(self.dataset, self.root, split=self.split)

    def identity(self) -> dict[str, Any]:
        """Return what must agree for two runs to be parts of one evaluation."""
        options = self.options.identity()
        options |= {"fps": self.fps, "object_value": self.object_value}
        value = {
            "dataset": self.dataset,
            "split": self.split,
            "models": self.models.identity(),
            "options": options,
        }
        # As it comes back from a file.
        back: dict[str, Any] = json.loads(json.dumps(value))
        return back


def read_samples(dataset: str, root: str, *, split: str) -> tuple[Sample, ...]:
    """Return a split's samples, each with an id of its own within its video.

    Ref-AVS gives eleven uids to two rows each; both count, and so both need a folder for predictions. The
    second becomes "<uid>.2".

    Raises:
        ValueError: the data set or the split is unknown.
        DatasetError: the data set is not there, or its annotations are malformed.
    """
    seen: dict[tuple[str, str], int] = {}
    samples = []
    for sample in open_dataset(dataset, root, split):
        key = sample.video.video_id, sample.expression_id
        seen[key] = number = seen.get(key, 0) + 1
        if number > 1:
            sample = dataclasses.replace(sample, expression_id=f"{sample.expression_id}.{number}")
        samples.append(sample)
    return tuple(samples)
