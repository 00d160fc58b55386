"""smart_resize, patches and the vision layout against transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as upstream
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from omni_sdk.errors import LimitError
from omni_sdk.graphs.smart_resize import smart_resize
from omni_sdk.graphs.windows import vision_layout
from omni_sdk.grs.patches import patchify
from omni_sdk.media.pixels import patch_layout


@settings(deadline=None, max_examples=200)
@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    factor=st.sampled_from([16, 28]),
    least=st.integers(1, 300),
    more=st.integers(0, 2000),
)
def test_smart_resize_equals_upstream(height, width, factor, least, more):
    budget = (least * factor**2, (least + more) * factor**2)
    try:
        expected = upstream.smart_resize(height, width, factor, *budget)
    except ValueError:
        with pytest.raises(LimitError, match="200 times"):
            smart_resize(height, width, factor=factor, min_pixels=budget[0], max_pixels=budget[1])
        return
    size = smart_resize(height, width, factor=factor, min_pixels=budget[0], max_pixels=budget[1])
    assert size == expected


def test_smart_resize_of_known_sizes():
    budget = {"factor": 28, "min_pixels": 16 * 784, "max_pixels": 128 * 784}
    assert smart_resize(480, 854, **budget) == (224, 420)
    with pytest.raises(ValueError, match="1x1"):
        smart_resize(0, 10, **budget)


def fused_video_reference(frames: np.ndarray, spec) -> torch.Tensor:
    """Qwen2VLVideoProcessor's rescale_and_normalize and patchify, which need torchvision, in torch."""
    mean = torch.tensor(spec.image_mean) * (1.0 / (1 / 255))
    std = torch.tensor(spec.image_std) * (1.0 / (1 / 255))
    video = torch.from_numpy(frames).permute(0, 3, 1, 2).to(torch.float32)
    video = video.sub_(mean[:, None, None]).div_(std[:, None, None])
    if odd := -len(video) % spec.temporal_patch_size:
        video = torch.cat([video, video[-1:].expand(odd, -1, -1, -1)])
    p, m, tp = spec.patch_size, spec.merge_size, spec.temporal_patch_size
    t, h, w = len(video) // tp, video.shape[2] // p, video.shape[3] // p
    video = video.view(1, t, tp, 3, h // m, m, p, w // m, m, p)
    return video.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(t * h * w, 3 * tp * p * p)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 28, 56), (4, 84, 56), (7, 56, 140)])
def test_patches_equal_the_video_processor_bit_for_bit(vision_spec, frames, height, width):
    rng = np.random.default_rng(frames)
    video = rng.integers(0, 256, (frames, height, width, 3), np.uint8)
    values, grid = patchify(video, vision_spec)
    assert grid == (-(-frames // 2), height // 14, width // 14)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert np.array_equal(values, fused_video_reference(video, vision_spec).numpy())


@pytest.mark.parametrize("has_native", [True, False])
def test_half_precision_patches_are_the_rounded_ones(vision_spec, monkeypatch, has_native):
    if not has_native:
        monkeypatch.setattr(patch_layout, "core", lambda: None)
    video = np.random.default_rng(1).integers(0, 256, (3, 56, 84, 3), np.uint8)
    values, _ = patchify(video, vision_spec)
    assert np.array_equal(values, fused_video_reference(video, vision_spec).numpy())
    halves, _ = patchify(video, vision_spec, "float16")
    assert halves.dtype == np.float16
    assert np.array_equal(halves, values.astype(np.float16))


def test_patches_of_nano_settings_equal_the_reference(nano_spec):
    video = np.random.default_rng(0).integers(0, 256, (5, 48, 32, 3), np.uint8)
    values, grid = patchify(video, nano_spec.vision)
    assert grid == (3, 6, 4)
    assert np.array_equal(values, fused_video_reference(video, nano_spec.vision).numpy())


def test_patches_of_an_image_equal_the_image_processor(vision_spec):
    image = np.random.default_rng(3).integers(0, 256, (112, 168, 3), np.uint8)
    size = {"shortest_edge": 28 * 28, "longest_edge": 10**6}
    expected = Qwen2VLImageProcessorPil(size=size)(image, return_tensors="np")
    values, grid = patchify(image[None], vision_spec)
    assert [list(grid)] == expected["image_grid_thw"].tolist()
    # the PIL class rescales in float64 and normalises afterwards: a few float32 roundings apart
    np.testing.assert_allclose(values, expected["pixel_values"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 28, 28, 3), np.uint8),
        np.zeros((1, 30, 28, 3), np.uint8),
        np.zeros((1, 28, 28, 3), np.float32),
        np.zeros((28, 28, 3), np.uint8),
    ],
)
def test_patches_refuse_other_frames(vision_spec, frames):
    with pytest.raises(ValueError, match=r"expected|multiples"):
        patchify(frames, vision_spec)


grids = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 10), st.integers(1, 10)), min_size=1, max_size=3
).map(lambda items: [(t, 2 * h, 2 * w) for t, h, w in items])


@settings(deadline=None, max_examples=60)
@given(grids, st.sampled_from([(14, 112), (8, 48)]))
def test_vision_layout_equals_upstream(vision_spec, grids, sizes):
    spec = replace(vision_spec, patch_size=sizes[0], window_size=sizes[1])
    layout = vision_layout(grids, spec)
    thw = torch.tensor(grids)
    order, starts = get_vision_window_index(thw, 2, spec.window_size, spec.patch_size)
    total = int(thw.prod(1).sum())
    places = (spec.window_size // spec.patch_size) ** 2

    assert np.array_equal(layout["position_ids"], get_vision_position_ids(thw, 2).numpy())
    gather = layout["gather"].reshape(-1, places)
    mask = layout["win_mask"]
    assert np.array_equal(mask, gather < total)
    # real places, read window by window, are upstream's windows in upstream's order
    patches = (order[:, None] * 4 + torch.arange(4)).flatten().numpy()
    assert np.array_equal(gather[mask], patches)
    lengths = mask.sum(1)
    assert np.array_equal(lengths[lengths > 0], np.diff(starts.numpy()))
    # full attention: one row per frame, holding exactly that frame's patches
    frames = get_vision_cu_seqlens(thw).numpy()
    rows = layout["gather"].reshape(len(frames) - 1, -1)
    assert layout["full_mask"].shape == rows.shape
    for row, keep, start, stop in zip(
        rows, layout["full_mask"], frames[:-1], frames[1:], strict=True
    ):
        assert sorted(row[keep]) == list(range(start, stop))
    # and back: output token k is read from the place that holds its four patches
    merged = layout["gather"].reshape(-1, 4)[layout["out_gather"]]
    assert np.array_equal(merged, np.arange(total).reshape(-1, 4))
    for name, array in layout.items():
        assert array.dtype == (np.bool_ if name.endswith("mask") else np.int64)


@pytest.mark.parametrize("grids", [[], [(1, 3, 4)], [(0, 2, 2)]])
def test_vision_layout_refuses_odd_grids(vision_spec, grids):
    with pytest.raises(ValueError, match="multiples of 2"):
        vision_layout(grids, vision_spec)
