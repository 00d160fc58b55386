"""The four SAM 2 graphs as one object, for N objects at once. The only code that knows their names.

Letters: S side of the input in pixels, C hidden channels, M memory channels, h = w = S / 16, N objects,
T memories, P pointers, K points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.bundle.manifest import DusSpec, GraphSpec, TensorSpec
from omni_sdk.errors import BundleError

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.engines.base import Engine, EngineLoader

Array = NDArray[np.float32]
IMAGE_ENCODER = "dus/image_encoder"
MASK_DECODER = "dus/mask_decoder"
MEMORY_ATTENTION = "dus/memory_attention"
MEMORY_ENCODER = "dus/memory_encoder"
PATCH = 16  # pixels of the input per feature, in every SAM 2


@dataclass(frozen=True, slots=True)
class Features:
    """One frame's features: (1, C/8, 4h, 4w), (1, C/4, 2h, 2w) and (1, C, h, w) float32."""

    feat_s0: Array
    feat_s1: Array
    pix_feat: Array


@dataclass(frozen=True, slots=True)
class Decoded:
    """Masks of N objects on one frame.

    Attributes:
        logits: (N, 4h, 4w) float32, > 0 on the object; -1024 everywhere where it is absent.
        pointers: (N, C) float32.
        scores: (N,) float32 logit; > 0 means present.
    """

    logits: Array
    pointers: Array
    scores: Array


class Sam2Graphs:
    """Runs the four graphs on numpy arrays."""

    def __init__(self, engines: Mapping[str, Engine], spec: DusSpec, no_memory: Array) -> None:
        """Wrap loaded graphs.

        Args:
            engines: by the names above.
            spec: settings of the model.
            no_memory: (C,) float32, added to the features of a frame that attends to nothing.

        Raises:
            BundleError: `no_memory` does not fit the settings.
        """
        if no_memory.shape != (spec.hidden_size,) or not np.isfinite(no_memory).all():
            raise BundleError(
                f"{spec.no_memory_embedding}: expected ({spec.hidden_size},) finite numbers, found "
                f"shape {no_memory.shape}"
            )
        self.spec = spec
        self._engines = engines
        self._no_memory = no_memory.astype(np.float32).reshape(1, -1, 1, 1)
        # x / 255 - mean, over std, as one multiplication and one addition
        std = np.array(spec.image_std, np.float32)
        self._scale = 1 / (255 * std)
        self._shift = -np.array(spec.image_mean, np.float32) / std

    @classmethod
    def open(cls, loader: EngineLoader, bundle: Bundle) -> Sam2Graphs:
        """Load a bundle's four graphs.

        Raises:
            BundleError: the bundle has no tracker, lacks a graph, or its constants do not fit.
            EngineError: the runtime refuses a graph.
        """
        spec = bundle.dus
        path = bundle.path(spec.no_memory_embedding)
        try:
            no_memory = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as e:
            raise BundleError(f"{path}: not a .npy array of numbers ({e})") from e
        return cls({name: loader.load(bundle, name) for name in GRAPHS}, spec, no_memory)

    def encode(self, image: NDArray[np.uint8]) -> Features:
        """Compute the features of an (S, S, 3) uint8 RGB image.

        Raises:
            ValueError: another shape or dtype.
        """
        side = self.spec.image_size
        if image.shape != (side, side, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"expected an image of ({side}, {side}, 3) uint8, got {image.shape} {image.dtype}"
            )
        pixels = (image * self._scale + self._shift).transpose(2, 0, 1)[None]
        out = self._run(IMAGE_ENCODER, image=np.ascontiguousarray(pixels))
        return Features(out["feat_s0"], out["feat_s1"], out["pix_feat"])

    def without_memory(self, features: Features, count: int) -> Array:
        """Return (N, C, h, w) features for `count` objects that attend to nothing."""
        return np.repeat(features.pix_feat + self._no_memory, count, axis=0)

    def attend(
        self,
        features: Features,
        memories: Array,
        slots: NDArray[np.int64],
        pointers: Array,
        distances: Array,
    ) -> Array:
        """Condition a frame's features on memories.

        Args:
            features: of the frame.
            memories: (N, T, hw, M).
            slots: (T,) rows of the temporal table.
            pointers: (N, P, C).
            distances: (P,) in time, over the greatest.

        Returns:
            (N, C, h, w) float32.
        """
        out = self._run(
            MEMORY_ATTENTION,
            pix_feat=features.pix_feat,
            mem_feat=memories,
            mem_tpos=slots,
            obj_ptr=pointers,
            ptr_dt=distances,
        )
        return np.asarray(out["pix_feat_mem"])

    def decode(
        self, features: Features, conditioned: Array, points: Array, labels: NDArray[np.int64]
    ) -> Decoded:
        """Find the masks of objects.

        Args:
            features: of the frame.
            conditioned: (N, C, h, w) from `attend` or `without_memory`.
            points: (N, K, 2) xy pixels of the S x S image.
            labels: (N, K): 1 on, 0 off the object, 2 and 3 a box's corners, -1 no point.
        """
        count, num_points = labels.shape
        # One click or none is ambiguous: the best of three masks. A box (two points) or several clicks:
        # one mask (upstream: `_use_multimask` with the published 0 and 1; export refuses others).
        ambiguous = num_points <= 1
        out = self._run(
            MASK_DECODER,
            pix_feat_mem=conditioned,
            feat_s0=features.feat_s0,
            feat_s1=features.feat_s1,
            point_coords=points,
            point_labels=labels,
            multimask=np.full(count, ambiguous),
        )
        return Decoded(out["low_res_masks"][:, 0], out["obj_ptr"], out["score"][:, 0])

    def memorise(
        self, features: Features, logits: Array, scores: Array, prompted: NDArray[np.bool_]
    ) -> Array:
        """Turn masks (N, 4h, 4w) with scores (N,) into memories (N, hw, M) float32.

        `prompted` (N,): the mask came from a prompt; it is binarised first.
        """
        out = self._run(
            MEMORY_ENCODER,
            pix_feat=features.pix_feat,
            low_res_masks=logits[:, None],
            score=scores[:, None],
            binarize=prompted,
        )
        return np.asarray(out["mem_feat"])

    def _run(self, graph: str, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return self._engines[graph].run(inputs)


GRAPHS = (IMAGE_ENCODER, MASK_DECODER, MEMORY_ATTENTION, MEMORY_ENCODER)


def graph_specs(spec: DusSpec) -> dict[str, GraphSpec]:
    """Return the inputs and outputs of each graph for a model of these sizes; files are NAME.onnx."""
    side, channels = spec.image_size, spec.hidden_size
    h = side // PATCH
    pix = (1, channels, h, h)
    s0, s1 = (1, channels // 8, 4 * h, 4 * h), (1, channels // 4, 2 * h, 2 * h)
    masks = ("N", 1, 4 * h, 4 * h)
    conditioned = ("N", channels, h, h)
    return {
        IMAGE_ENCODER: _graph(
            IMAGE_ENCODER,
            {"image": (1, 3, side, side)},
            {"feat_s0": s0, "feat_s1": s1, "pix_feat": pix},
        ),
        MASK_DECODER: _graph(
            MASK_DECODER,
            {
                "pix_feat_mem": conditioned,
                "feat_s0": s0,
                "feat_s1": s1,
                "point_coords": ("N", "K", 2),
                "point_labels": ("N", "K"),
                "multimask": ("N",),
            },
            {
                "low_res_masks": masks,
                "iou": ("N", 1),
                "obj_ptr": ("N", channels),
                "score": ("N", 1),
            },
        ),
        MEMORY_ATTENTION: _graph(
            MEMORY_ATTENTION,
            {
                "pix_feat": pix,
                "mem_feat": ("N", "T", h * h, spec.memory_size),
                "mem_tpos": ("T",),
                "obj_ptr": ("N", "P", channels),
                "ptr_dt": ("P",),
            },
            {"pix_feat_mem": conditioned},
        ),
        MEMORY_ENCODER: _graph(
            MEMORY_ENCODER,
            {"pix_feat": pix, "low_res_masks": masks, "score": ("N", 1), "binarize": ("N",)},
            {"mem_feat": ("N", h * h, spec.memory_size)},
        ),
    }


_DTYPES = {"point_labels": "int64", "mem_tpos": "int64", "multimask": "bool", "binarize": "bool"}


def _graph(
    name: str,
    inputs: dict[str, tuple[int | str, ...]],
    outputs: dict[str, tuple[int | str, ...]],
) -> GraphSpec:
    def tensors(axes: dict[str, tuple[int | str, ...]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(key, _DTYPES.get(key, "float32"), axes[key]) for key in axes)

    return GraphSpec(f"{name}.onnx", tensors(inputs), tensors(outputs))
