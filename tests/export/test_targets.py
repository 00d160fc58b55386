"""Plans of targets: pure functions of a bundle's graphs."""

import pytest
from omni_export.cli import main
from omni_export.precision import PRECISIONS
from omni_export.targets import FLOAT32, TARGETS, plan_target

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.errors import BundleError


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


@pytest.mark.parametrize("target", TARGETS)
def test_every_graph_has_one_thing_to_load_and_the_target_runs_it(nano, target):
    plan = plan_target(target, nano.manifest)
    assert {c.graph for c in plan.choices} == set(nano.manifest.graphs)
    for graph in nano.manifest.graphs:
        (chosen,) = [c for c in plan.choices if c.graph == graph and c.use]
        backend = "tensorrt" if target in ("tensorrt", "jetson") else "onnx"
        if chosen.variant != FLOAT32:
            precision = PRECISIONS[chosen.variant]
            assert precision.has(graph)
            assert backend in precision.backends
            assert ("cpu" if target == "cpu" else "cuda") in precision.devices
    lines = plan.lines()
    assert len(lines) == len(plan.choices) + 2
    assert target in lines[0]
    for name in plan.load:
        assert f"--variant {name}" in lines[-1]


def test_what_differs_between_targets(nano):
    loads = {target: plan_target(target, nano.manifest).load for target in TARGETS}
    assert set(loads["cpu"]) == {"fused-int8", "fused-attention"}
    assert set(loads["cuda"]) == {"fp16", "fused-fp16"}
    assert loads["tensorrt"] == loads["jetson"] == ["fp16"]
    assert plan_target("cpu", nano.manifest).variants == [
        "fused-int8",
        "fused",
        "fused-attention",
    ]


def test_loading_in_the_plans_order_gives_the_plan(nano):
    """A later variant wins, so the decoder's own must come after the one of all graphs."""
    for target in TARGETS:
        plan = plan_target(target, nano.manifest)
        for choice in plan.choices:
            if choice.use and choice.variant != FLOAT32:
                has = [n for n in plan.load if PRECISIONS[n].has(choice.graph)]
                assert has[-1] == choice.variant, (target, choice)


def test_unknown_target(nano):
    with pytest.raises(BundleError, match="no target 'tpu'; known: cpu, cuda"):
        plan_target("tpu", nano.manifest)


def test_command_line(nano, capsys):
    arguments = ["variants", str(nano.directory), "--target", "cpu"]
    assert main([*arguments, "--print-only"]) == 0
    shown = capsys.readouterr().out
    assert "plan for cpu" in shown
    assert "fused-int8 *" in shown
    assert main(arguments) == 2
    assert "--out" in capsys.readouterr().err
    assert main([*arguments[:2], "--target", "x", "--print-only"]) == 1
