"""Ref-AVS and refCOCOg as training samples: one image, one answer.

Ref-AVS as published (omni-r1.md section 1.2): 1,600 random rows of the train split, the *first* frame and
all ten seconds of sound; the answer is a phrase, which the grounder must find in that frame. What is mended:
an object that is not in the first frame is a sample whose right answer is [] (its box was -1, -1, -1, -1, and
so was that of a reply that nobody could read); a missing file is an error (another sample took its place).

refCOCOg_2k_840: the image at its 840 x 840 pixels; the answer is a box and two points of the model itself,
so no detail system is asked.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omni_sdk.datasets import Sample, open_dataset
from omni_sdk.datasets.images import decode_image, read_image
from omni_sdk.datasets.refcocog import RefcocogRow, open_refcocog
from omni_sdk.errors import DatasetError
from omni_sdk.grs.processor import check_query
from omni_sdk.grs.request import ThinkerRequest
from omni_sdk.media.audio import read_audio
from omni_sdk.media.clock import Clock
from omni_sdk.media.frame_source import ImageFrameSource
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.pixels.resize import resize
from omni_sdk.stages import Image

from omni_training.data.prompts import BOX, PHRASE, Model
from omni_training.rewards.truth import ClipTruth

REFAVS, REFCOCOG = "refavs", "refcocog_2k_840"
REFAVS_SECONDS = 10.0
REFAVS_COUNT = 1600


class RefAvsSamples:
    """`samples.SampleStore` over rows of Ref-AVS, named "refavs/UID"."""

    def __init__(self, rows: dict[str, Sample], model: Model) -> None:
        """Keep rows by sample id; media are read per sample."""
        self._rows = rows
        self._processor = model.processor()
        self._truth = lru_cache(maxsize=64)(self._read_truth)

    def request(self, sample_id: str) -> ThinkerRequest:
        """Read the first frame and the sound; DatasetError or MediaError where one is missing."""
        sample = self._row(sample_id)
        path = sample.video.audio_path
        assert path is not None, "the reader names a sound for every row"
        limits = MediaLimits()
        sound = read_audio(
            path,
            # The allow-list is one of videos; the name of this file comes from the data set's layout.
            replace(limits, formats=(*limits.formats, "wav")),
            first_seconds=0.0,
            sampling_rate=self._processor.spec.audio.sampling_rate,
            max_seconds=REFAVS_SECONDS,
        )
        if sound is None:
            raise DatasetError(f"{path}: expected sound, found none that can be decoded")
        text = PHRASE.format(query=check_query(sample.expression))
        image = sample.video.read_frame(0)
        request, _ = self._processor.image_request(
            image, text, max_new_tokens=1, sound=sound.samples
        )
        return request

    def truth(self, sample_id: str) -> ClipTruth:
        """Return the object in the first frame; none where its mask is empty there."""
        return self._truth(sample_id)

    def clock(self, sample_id: str) -> Clock:
        """Return a clock of one frame that lasts the whole clip."""
        return Clock(np.zeros(1, np.int64), np.zeros(1), REFAVS_SECONDS, None)

    def clip_id(self, sample_id: str) -> str:
        """Return the media folder."""
        return f"{REFAVS}/{self._row(sample_id).video.video_id}"

    def group(self, sample_id: str) -> str:
        """Return the kind of task, which a batch does not mix."""
        return REFAVS

    def reward_clip(self, sample_id: str, tracker_size: int) -> FirstFrame:
        """Return the sample as a worker sees it."""
        return FirstFrame(self._row(sample_id), tracker_size)

    def _row(self, sample_id: str) -> Sample:
        if sample_id not in self._rows:
            raise DatasetError(f"no sample {sample_id!r} among {len(self._rows)}")
        return self._rows[sample_id]

    def _read_truth(self, sample_id: str) -> ClipTruth:
        return first_frame_truth(self._row(sample_id))


class FirstFrame:
    """`workers.scorer.RewardClip` over the first frame of a Ref-AVS clip."""

    def __init__(self, sample: Sample, tracker_size: int) -> None:
        """Read the truth; the frame is read when it is asked for."""
        self._sample = sample
        self.truth = first_frame_truth(sample)
        image = self.image(0)
        self.frames = ImageFrameSource(
            lambda _, size: resize(image, size, "bilinear"), [0.0], image.shape[:2], tracker_size
        )

    def image(self, frame_index: int) -> Image:
        """Return the frame at its full size."""
        return self._sample.video.read_frame(frame_index)

    def true_masks(self) -> dict[int, NDArray[np.bool_]]:
        """Return the object's mask."""
        return {0: self._sample.mask_at(0)}


class RefcocogSamples:
    """`samples.SampleStore` over rows of refCOCOg_2k_840, named "refcocog_2k_840/ID"."""

    def __init__(self, rows: dict[str, RefcocogRow], model: Model, folder: Path) -> None:
        """Keep rows by sample id; `folder` is where relative image paths begin."""
        self._rows = rows
        self._processor = model.processor()
        self._folder = folder

    def request(self, sample_id: str) -> ThinkerRequest:
        """Decode the image and make the prompt; DatasetError where it is missing or broken."""
        row = self._row(sample_id)
        image = row_image(row, self._folder)
        if image.shape[:2] != row.size:
            raise DatasetError(
                f"{sample_id}: expected an image of {row.size}, got {image.shape[:2]}"
            )
        text = BOX.format(query=check_query(row.expression))
        request, _ = self._processor.image_request(image, text, max_new_tokens=1)
        return request

    def truth(self, sample_id: str) -> ClipTruth:
        """Return box and points in pixels of the image as the model sees it."""
        row = self._row(sample_id)
        height, width = self._processor.image_size(*row.size)
        scale = np.array([width / row.size[1], height / row.size[0]])
        box = (np.array(row.box_xyxy) * np.tile(scale, 2)).astype(np.float32)
        area = max(1, round(float((box[2] - box[0]) * (box[3] - box[1]))))
        return ClipTruth(
            areas=np.array([[area]]),
            boxes_xyxy=box.reshape(1, 1, 4),
            union_areas=np.array([area]),
            answer="box",
            points_xy=np.array(row.points_xy) * scale,
        )

    def clock(self, sample_id: str) -> Clock:
        """Return a clock of one frame."""
        return Clock(np.zeros(1, np.int64), np.zeros(1), 0.5, 2.0)

    def clip_id(self, sample_id: str) -> str:
        """Return the sample itself."""
        return sample_id

    def group(self, sample_id: str) -> str:
        """Return the kind of task, which a batch does not mix."""
        return REFCOCOG

    def _row(self, sample_id: str) -> RefcocogRow:
        if sample_id not in self._rows:
            raise DatasetError(f"no sample {sample_id!r} among {len(self._rows)}")
        return self._rows[sample_id]


def first_frame_truth(sample: Sample) -> ClipTruth:
    """Measure the object's mask in the first frame.

    Raises:
        DatasetError: the mask is missing or malformed.
    """
    mask = sample.mask_at(0)[None, None]
    return ClipTruth.from_masks(mask if mask.any() else mask[:0], answer="phrase")


def row_image(row: RefcocogRow, folder: Path) -> Image:
    """Decode a row's image: encoded bytes, the `datasets` library's {"bytes", "path"}, or a path.

    Raises:
        DatasetError: there is none, or it cannot be read; a path must stay inside the folder.
    """
    value: Any = row.image
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return decode_image(value, f"image of row {row.row_id}")
    if isinstance(value, str) and value:
        path = (folder / value).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise DatasetError(f"row {row.row_id}: the image path {value!r} leaves {folder}")
        return read_image(path)
    raise DatasetError(
        f"row {row.row_id}: expected an image as bytes or a path, got {type(value).__name__}"
    )


def open_refavs_samples(
    root: str, model: Model, *, split: str = "train", count: int = REFAVS_COUNT, seed: int = 0
) -> tuple[list[str], RefAvsSamples]:
    """Draw `count` rows of a split (all of them if there are fewer), in an order of the seed's."""
    records = open_dataset(REFAVS, root, split)
    order = np.random.default_rng(seed).permutation(len(records))[:count]
    rows = {f"{REFAVS}/{records[int(i)].expression_id}": records[int(i)] for i in order}
    return list(rows), RefAvsSamples(rows, model)


def open_refcocog_samples(path: str, model: Model) -> tuple[list[str], RefcocogSamples]:
    """Read every row of a .jsonl or .parquet file."""
    rows = {f"{REFCOCOG}/{row.row_id}": row for row in open_refcocog(path)}
    return list(rows), RefcocogSamples(rows, model, Path(path).parent)
