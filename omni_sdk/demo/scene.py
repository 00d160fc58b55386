"""Scenes drawn from seeds: who is where, when, in what colour, what sounds, and what is asked."""

from __future__ import annotations

import numpy as np

from omni_sdk.demo import draw_next, draw_shipped
from omni_sdk.demo.objects import Scene, SceneObject, Tone
from omni_sdk.demo.world import SHIPPED, Rules, check_family

__all__ = ["Scene", "SceneObject", "Tone", "draw_scene", "make_scene"]


def make_scene(seed: int, family: str | None = None, rules: Rules = SHIPPED) -> Scene:
    """Return the scene of a seed.

    Args:
        seed: any non-negative integer; Note [Seeds] in `omni_sdk.demo.world` says which are held out.
        family: one of `rules.families`; None draws it.
        rules: of the world.

    Raises:
        ValueError: unknown family.
    """
    return draw_scene(np.random.default_rng(seed), family, rules)


def draw_scene(
    rng: np.random.Generator, family: str | None = None, rules: Rules = SHIPPED
) -> Scene:
    """Draw a scene; see `make_scene`.

    Raises:
        ValueError: unknown family.
    """
    if family is None:
        family = rules.families[rng.choice(len(rules.families), p=rules.probabilities)]
    check_family(family, rules)
    if rules.name == SHIPPED.name:
        return draw_shipped.draw(rng, family)
    return draw_next.draw(rng, family, rules)
