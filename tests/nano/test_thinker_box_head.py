"""What the language model is asked for at each picture token, and the loss of its answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from omni_training.nano.thinker.box_head import UNKNOWN, BoxHead, box_targets  # noqa: E402
from omni_training.nano.thinker.losses import soft_coordinates  # noqa: E402
from omni_training.nano.thinker.pictures import step_seconds  # noqa: E402

from omni_sdk.demo.render import object_map  # noqa: E402
from omni_sdk.demo.scene import make_scene  # noqa: E402

GRID, PIXELS = 9, 144


@pytest.mark.parametrize("family", ["direct", "two", "occluded"])
def test_each_cell_is_given_the_box_of_what_it_shows_most(family: str) -> None:
    """By the definition, pixel by pixel, without the function's own tools."""
    cell = PIXELS // GRID
    for seed in range(6):
        scene, step = make_scene(seed, family), 2 * seed + 3
        seen = object_map(scene, step_seconds(step), (PIXELS, PIXELS))
        truth = box_targets(scene, step, GRID, PIXELS).reshape(GRID, GRID, 4)
        for y in range(GRID):
            for x in range(GRID):
                here = seen[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell]
                counts = [int((here == i + 1).sum()) for i in range(len(scene.objects))]
                if not any(counts):
                    assert (truth[y, x] == UNKNOWN).all()
                    continue
                rows, columns = np.nonzero(seen == np.argmax(counts) + 1)
                edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert tuple(truth[y, x]) == edges


def test_the_loss_is_the_cross_entropy_with_soft_edges() -> None:
    torch.manual_seed(0)
    head = BoxHead(8, 32)
    states, truth = torch.randn(5, 8), torch.tensor([[3, 4, 20, 32]] * 4 + [[UNKNOWN] * 4])
    log = head.linear(states[:4]).detach().view(4, 4, 33).log_softmax(-1)
    soft = soft_coordinates(32)
    expected = -sum(
        float((soft[v] * log[row, edge]).sum())
        for row in range(4)
        for edge, v in enumerate(truth[0])
    )
    assert float(head.loss(states, truth)) == pytest.approx(expected / 16, rel=1e-5)


def test_a_batch_that_shows_nothing_has_no_loss() -> None:
    head = BoxHead(8, 32)
    loss = head.loss(torch.randn(3, 8), torch.full((3, 4), UNKNOWN))
    loss.backward()
    assert float(loss) == 0
    assert all(float(p.grad.abs().sum()) == 0 for p in head.parameters())


def test_soft_coordinates_are_gaussians_around_each_pixel() -> None:
    soft = soft_coordinates(96)
    assert soft.shape == (97, 97)
    assert torch.allclose(soft.sum(1), torch.ones(97))
    assert (soft.argmax(1) == torch.arange(97)).all()
    assert float(soft[40, 43] / soft[40, 40]) == pytest.approx(
        math.exp(-9 / (2 * 1.5**2)), rel=1e-5
    )
