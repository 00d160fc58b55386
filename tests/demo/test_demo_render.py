"""Pictures, masks and boxes of scenes."""

from __future__ import annotations

import numpy as np
import pytest

from omni_sdk.demo.render import box, mask, object_map, render
from omni_sdk.demo.scene import Scene, SceneObject, make_scene
from omni_sdk.demo.world import COLORS, STEPS

SCENES = [make_scene(seed, "last") for seed in range(24)]


def lone(shape: str, *, radius: int = 16, at: tuple[float, float] = (48.0, 48.0)) -> Scene:
    """One object that stands still on the stage for the whole clip."""
    item = SceneObject("red", shape, radius, at, (0.0, 0.0), 0, STEPS)
    return Scene("direct", (item,), None, "the red shape", 0, (0, STEPS), 30.0, 1)


@pytest.mark.parametrize("shape", ["circle", "bar", "pole", "cross"])
def test_edges_are_sharper_in_a_larger_frame(shape: str) -> None:
    """The share of the shape's area that lies in half-covered pixels falls with the pixels' size."""
    blurred = []
    for side in (48, 96, 384):
        scene = lone(shape, at=(48.3, 47.8))
        red = render(scene, 0.0, (side, side), grain=0)[..., 0].astype(float)
        share = (red - 30) / (COLORS["red"][0] - 30)
        blurred.append(
            np.count_nonzero((share > 0.1) & (share < 0.9)) / np.count_nonzero(share > 0.5)
        )
    assert blurred[0] > 1.5 * blurred[1] > 3 * blurred[2]


@pytest.mark.parametrize("shape", ["circle", "bar", "pole", "cross"])
@pytest.mark.parametrize("size", [(48, 48), (90, 160), (384, 384)])
def test_coverage_and_mask_have_the_same_area(shape: str, size: tuple[int, int]) -> None:
    scene = lone(shape, at=(40.37, 51.81))
    red = render(scene, 0.0, size, grain=0)[..., 0].astype(float)
    covered = ((red - 30) / (COLORS["red"][0] - 30)).sum()
    assert covered == pytest.approx(mask(scene, 0.0, size, 0).sum(), rel=0.06)


@pytest.mark.parametrize("shape", ["circle", "bar", "pole", "cross"])
def test_half_size_is_the_mean_of_four_pixels(shape: str) -> None:
    """Area coverage does not depend on the resolution at which it is averaged."""
    scene = lone(shape, at=(40.37, 51.81))
    fine = render(scene, 0.0, (192, 192), grain=0).astype(float)
    coarse = render(scene, 0.0, (96, 96), grain=0).astype(float)
    means = fine.reshape(96, 2, 96, 2, 3).mean((1, 3))
    assert np.abs(means - coarse).max() <= (30 if shape == "circle" else 1.1)
    assert np.abs(means - coarse).mean() < 0.6


def test_pixels_inside_a_mask_have_its_color() -> None:
    for scene in SCENES[:6]:
        picture = render(scene, 6.0, (384, 384), grain=0).astype(int)
        for index, item in enumerate(scene.objects):
            inside = mask(scene, 6.0, (384, 384), index)
            if inside.any():
                error = np.abs(picture[inside] - COLORS[item.color]).max(-1)
                assert np.mean(error <= 1) > 0.9  # all but the rim


def test_later_objects_hide_earlier_ones() -> None:
    front = SceneObject("blue", "bar", 14, (50.0, 48.0), (0.0, 0.0), 0, 8)
    scene = lone("circle")
    scene = Scene("direct", (*scene.objects, front), None, "the blue shape", 1, (0, 8), 30.0, 1)
    whole = mask(scene, 5.0, (192, 192), 0)  # the bar has left
    hidden, bar = mask(scene, 1.0, (192, 192), 0), mask(scene, 1.0, (192, 192), 1)
    assert not (hidden & bar).any()
    np.testing.assert_array_equal(hidden, whole & ~bar)
    assert render(scene, 1.0, (96, 96), grain=0)[48, 48].tolist() == list(COLORS["blue"])


def test_objects_are_seen_from_enter_up_to_leave() -> None:
    scene = next(s for s in SCENES if any(o.leave < STEPS and o.enter > 0 for o in s.objects))
    index = next(i for i, o in enumerate(scene.objects) if o.leave < STEPS and o.enter > 0)
    start, end = scene.objects[index].span_seconds
    seen = [mask(scene, t, (96, 96), index).any() for t in (start - 1e-6, start, end - 1e-6, end)]
    assert seen == [False, True, True, False]


def test_motion_is_continuous() -> None:
    """Between the half seconds too, an object goes on by its velocity."""
    item = SceneObject("red", "bar", 16, (30.0, 40.0), (4.3, -1.7), 0, STEPS)
    scene = Scene("direct", (item,), None, "the red shape", 0, (0, STEPS), 30.0, 1)
    centres = []
    for k in range(17):
        rows, columns = np.nonzero(mask(scene, k / 16, (768, 768), 0))
        centres.append((columns.mean(), rows.mean()))
    travelled = np.array(centres) - centres[0]
    expected = np.arange(17)[:, None] / 16 * np.array(item.velocity_xy) * 768 / 96
    np.testing.assert_allclose(travelled, expected, atol=1.0)  # centres of whole pixels


def test_box_is_the_tight_box_of_the_mask() -> None:
    scene = lone("pole", radius=16, at=(47.5, 47.5))
    # 33 units long, 13 wide, centred on the stage (48, 48 in continuous units); 2 pixels per unit.
    assert box(scene, 0.0, (192, 192), 0) == (96 - 13, 96 - 33, 96 + 13, 96 + 33)
    # Twice as wide a frame shows the same stage in its middle.
    assert box(scene, 0.0, (192, 384), 0) == (192 - 13, 96 - 33, 192 + 13, 96 + 33)


def test_a_picture_is_a_function_of_scene_time_and_size() -> None:
    scene = SCENES[3]
    first = render(scene, 1.125, (96, 128))
    assert first.shape == (96, 128, 3)
    assert first.dtype == np.uint8
    render(SCENES[4], 2.0, (96, 96))
    np.testing.assert_array_equal(first, render(scene, 1.125, (96, 128)))
    assert (first != render(scene, 1.25, (96, 128))).mean() > 0.5  # fresh noise


def test_grain_has_the_same_deviations_from_every_size() -> None:
    def deviation(side: int, block: int) -> float:
        noise = [
            render(s, 1.0, (side, side)).astype(float) - render(s, 1.0, (side, side), grain=0)
            for s in SCENES[:4]
        ]
        n = side // block
        means = [d.reshape(n, block, n, block, 3).mean((1, 3)) for d in noise]
        return float(np.std(means))

    assert deviation(96, 1) == pytest.approx(6, rel=0.1)
    assert deviation(384, 4) == pytest.approx(6, rel=0.1)
    assert deviation(96, 2) == pytest.approx(4, rel=0.1)
    assert deviation(384, 8) == pytest.approx(4, rel=0.1)
    assert deviation(48, 1) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("size", [(0, 96), (96, -1), (96, 8193), (96, 769)])
def test_sizes_out_of_range(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="size m"):
        render(SCENES[0], 0.0, size)
    with pytest.raises(ValueError, match="size m"):
        object_map(SCENES[0], 0.0, size)


def test_times_and_objects_out_of_range() -> None:
    with pytest.raises(ValueError, match="finite"):
        render(SCENES[0], float("nan"), (96, 96))
    with pytest.raises(IndexError, match="got 3"):
        mask(SCENES[0], 0.0, (96, 96), 3)
