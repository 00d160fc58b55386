"""Which variants a target gets, and why: a plan that is printed before anything is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omni_sdk.bundle.manifest import Manifest
from omni_sdk.errors import BundleError

TARGETS = ("cpu", "cuda", "tensorrt", "jetson")
FLOAT32 = "float32"
"""Stands for the graph as it was exported."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of a plan.

    Attributes:
        graph: as in the manifest.
        variant: a name of `PRECISIONS`, or `FLOAT32`.
        use: the variant to load; others are made to be compared with.
        why: one sentence.
    """

    graph: str
    variant: str
    use: bool
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is made for a target.

    Attributes:
        target: of `TARGETS`.
        choices: one for each graph and variant, graphs in the manifest's order.
        next_step: what the user does afterwards.
    """

    target: str
    choices: tuple[Choice, ...]
    next_step: str

    @property
    def variants(self) -> list[str]:
        """Names of the variants to make, each once."""
        found = (c.variant for c in self.choices if c.variant != FLOAT32)
        return list(dict.fromkeys(found))

    @property
    def load(self) -> list[str]:
        """Names of the variants to load, in the order for `Bundle.with_variants`."""
        found = (c.variant for c in self.choices if c.use and c.variant != FLOAT32)
        return list(dict.fromkeys(found))

    def lines(self) -> list[str]:
        """Return the plan as a table for people."""
        rows = [(c.graph, c.variant + (" *" if c.use else ""), c.why) for c in self.choices]
        width = [max(len(row[i]) for row in rows) for i in (0, 1)]
        table = [f"  {g:<{width[0]}}  {v:<{width[1]}}  {why}" for g, v, why in rows]
        return [f"plan for {self.target} (*: to be loaded)", *table, f"then: {self.next_step}"]


_HALF = "half the bytes and float16 arithmetic; every tensor inside is typed"
_WHOLE_IMAGE = ("fused-attention", True, "float32; scores over the whole image are never written")
_RULES: dict[str, dict[str, Sequence[tuple[str, bool, str]]]] = {
    "cpu": {
        "grs/decoder": (
            ("fused-int8", True, "a step reads each weight once: a quarter of the bytes"),
            ("fused", False, "float32 with equal tokens; attention does not repeat its keys"),
        ),
        "grs/embed": ((FLOAT32, True, "a look-up"),),
        "dus/image_encoder": (_WHOLE_IMAGE,),
        "dus/memory_attention": (_WHOLE_IMAGE,),
        "": ((FLOAT32, True, "float16 has no fast kernels here, int8 moves masks for 1.3x"),),
    },
    "cuda": {
        "grs/decoder": (
            ("fused-fp16", True, "grouped attention keeps keys unrepeated; batches go row by row"),
            ("fp16", False, "standard operators, for padded batches"),
        ),
        "grs/embed": ((FLOAT32, True, "a look-up"),),
        "": (("fp16", True, _HALF),),
    },
    "tensorrt": {"": (("fp16", True, f"{_HALF}; standard operators only"),)},
    "jetson": {
        "": (("fp16", True, f"{_HALF}; memory is shared with the CPU; standard operators only"),)
    },
}
_NEXT = {
    "cpu": "omni-sdk run VIDEO QUESTION --bundle OUT --device cpu{load}",
    "cuda": "omni-sdk run VIDEO QUESTION --bundle OUT --device cuda{load}",
    "tensorrt": "omni-export tensorrt OUT{load} on the machine that will run it",
    "jetson": "copy OUT to the Jetson, and there: omni-export tensorrt OUT{load}",
}


def plan_target(target: str, manifest: Manifest) -> Plan:
    """Choose the variants of a bundle for a target; a pure function of its graphs.

    Raises:
        BundleError: an unknown target.
    """
    if target not in TARGETS:
        raise BundleError(f"no target {target!r}; known: {', '.join(TARGETS)}")
    rules = _RULES[target]
    choices = []
    for graph, spec in manifest.graphs.items():
        for variant, use, why in rules.get(graph, rules[""]):
            form = f"{spec.form}; " if spec.form else ""
            choices.append(Choice(graph, variant, use, form + why))
    plan = Plan(target, tuple(choices), "")
    load = "".join(f" --variant {name}" for name in plan.load)
    return Plan(target, tuple(choices), _NEXT[target].format(load=load))
