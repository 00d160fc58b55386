"""Signatures of the native module; documented on the public faces that call it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# mask kernels: omni_sdk.dus.masks
def rle_encode(mask: NDArray[np.uint8]) -> bytes: ...
def rle_decode(counts: bytes, height: int, width: int) -> NDArray[np.bool_]: ...
def logits_to_rle(
    logits: NDArray[np.float32], height: int, width: int, threshold: float
) -> list[bytes]: ...
def rle_area(counts: bytes, height: int, width: int) -> int: ...
def rle_box(counts: bytes, height: int, width: int) -> tuple[int, int, int, int]: ...
def rle_iou(
    a: Sequence[bytes], b: Sequence[bytes], height: int, width: int
) -> NDArray[np.float64]: ...
def rle_union(counts: Sequence[bytes], height: int, width: int) -> bytes: ...
def mask_iou(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float: ...
def clean_mask(mask: NDArray[np.uint8], min_area: int, max_hole: int) -> NDArray[np.bool_]: ...
def boundary(mask: NDArray[np.uint8]) -> NDArray[np.bool_]: ...
def boundary_match(
    a: NDArray[np.uint8], b: NDArray[np.uint8], radius: int
) -> tuple[int, int, int, int]: ...

# resize: omni_sdk.media.pixels.resize
def resize(
    images: NDArray[np.uint8], height: int, width: int, filter: str
) -> NDArray[np.uint8]: ...
def resize_plane(
    plane: object, row_stride: int, size: tuple[int, int], wanted: tuple[int, int], filter: str
) -> NDArray[np.uint8]: ...
def yuv_to_rgb(
    planes: Sequence[object],
    strides: Sequence[int],
    size: tuple[int, int],
    wanted: tuple[int, int],
    filter: str,
    inverse: Sequence[int],
    is_full_range: bool,
    chroma_rows: int = 2,
) -> NDArray[np.uint8]: ...

# carrying masks: omni_sdk.dus.flow.carry
def flow_select(
    luma: NDArray[np.uint8], mask: NDArray[np.uint8], box: tuple[int, int, int, int], count: int
) -> NDArray[np.float64]: ...
def flow_track(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    box: tuple[int, int, int, int],
    points: NDArray[np.float64],
    guesses: NDArray[np.float64],
    levels: int,
    iterations: int,
) -> NDArray[np.float64]: ...
def flow_fit(
    matches: NDArray[np.float64], prior: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def flow_smooth(
    matches: NDArray[np.float64],
    affine: NDArray[np.float64],
    weights: NDArray[np.float64],
    radius: float,
) -> NDArray[np.float64]: ...
def flow_warp(
    mask: NDArray[np.uint8],
    anchor: NDArray[np.uint8],
    current: NDArray[np.uint8],
    matches: NDArray[np.float64],
    affine: NDArray[np.float64],
    weights: NDArray[np.float64],
    radius: float,
    box: tuple[int, int, int, int],
    cell: int,
) -> NDArray[np.bool_]: ...

# pixels: omni_sdk.media.pixels.fast, omni_sdk.media.pixels.patch_layout
class PlanePixels:
    def __init__(
        self,
        subsampling: tuple[int, int],
        bits: int,
        padding_bits: int,
        chroma_interleaved: bool,
        siting: tuple[float, float],
        size: tuple[int, int],
        wanted: tuple[int, int],
        filter: str,
    ) -> None: ...
    def rgb(
        self,
        planes: Sequence[object],
        strides: Sequence[int],
        matrix: Sequence[float],
        turn: tuple[bool, bool, bool],
        out: NDArray[np.uint8],
    ) -> None: ...
    def patches(
        self,
        planes: Sequence[object],
        strides: Sequence[int],
        matrix: Sequence[float],
        turn: tuple[bool, bool, bool],
        sides: tuple[int, int, int],
        scale: Sequence[float],
        offset: Sequence[float],
        out: NDArray[np.floating],
        frame: int,
    ) -> None: ...

def patchify(
    images: NDArray[np.uint8],
    sides: tuple[int, int, int],
    tables: NDArray[np.floating],
    out: NDArray[np.floating],
    first: int,
) -> None: ...
