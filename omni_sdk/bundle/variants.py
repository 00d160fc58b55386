"""Which variants of a bundle go together, and how far each choice is from the exact graphs.

Everything comes from the manifest: which graphs have a variant, what it was measured to be off by at export
(the parity rows "GRAPH@VARIANT"), which engines run it and what it takes. A variant that is added later
needs no change here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle

Names = tuple[str, ...]
NEARLY_LOSSLESS = 0.3
"""In standard deviations of a graph's outputs: up to here answers hardly change (int8: 0.05 to 0.1)."""
_ASSUMED = (("int4", 2.0), ("int8", 0.3), ("float32", 0.0), ("", 0.05))
"""Where the manifest has no measurement, by precision: what export allows at most."""


def variant_choices(
    bundle: Bundle, backend: str, device: str = "cpu"
) -> tuple[list[Names], list[Names]]:
    """Return the choices of variants that an engine can run, those nearer to the exact graphs first.

    A choice is none, one, or one with another on top that fewer graphs have (float16 everywhere with an
    int8 decoder). Choices that end in the same files are one.

    Args:
        bundle: without variants chosen.
        backend: "onnx" or "tensorrt".
        device: "cpu", "cuda" or "cuda:N".

    Returns:
        Choices that hardly change answers, and those of last resort.
    """
    kind = device.partition(":")[0]
    graphs = bundle.manifest.graphs
    covers = {
        name: frozenset(key for key, graph in graphs.items() if name in graph.variants)
        for name in sorted({v for graph in graphs.values() for v in graph.variants})
    }
    choices: list[Names] = [(), *((name,) for name in covers)]
    choices += [(a, b) for a in covers for b in covers if covers[b] < covers[a]]
    ranked: dict[Names, tuple[float, bool, int, Names]] = {}
    for choice in choices:
        chosen = bundle.with_variants(*choice)
        used = chosen.manifest.graphs.values()
        if all(backend in graph.backends and kind in graph.devices for graph in used):
            files = tuple(graph.file for graph in chosen.manifest.graphs.values())
            loss = choice_loss(bundle, choice)
            ranked.setdefault(files, (loss, bool(choice), weight_bytes(chosen), choice))
    ordered = sorted(ranked.values())
    return (
        [choice for loss, *_, choice in ordered if loss <= NEARLY_LOSSLESS],
        [choice for loss, *_, choice in ordered if loss > NEARLY_LOSSLESS],
    )


def choice_loss(bundle: Bundle, choice: Names) -> float:
    """Return how far the graphs of a choice are from the exact ones: the worst of them, in deviations."""
    measured = {row.subject: row.value for row in bundle.manifest.parity}
    worst = 0.0
    for key, graph in bundle.manifest.graphs.items():
        used = [name for name in choice if name in graph.variants]
        if used:
            precision = graph.variants[used[-1]].precision
            assumed = next(loss for sign, loss in _ASSUMED if sign in precision)
            worst = max(worst, measured.get(f"{key}@{used[-1]}", assumed))
    return worst


def weight_bytes(bundle: Bundle) -> int:
    """Return the memory that the weights of all chosen graphs take once loaded."""
    files = bundle.manifest.files
    return sum(
        graph.weight_bytes or sum(files[f].size for f in (graph.file, *graph.data))
        for graph in bundle.manifest.graphs.values()
    )
