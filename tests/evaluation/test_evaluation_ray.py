from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni_sdk.errors import BundleError
from omni_sdk.evaluation.plan import Models, Plan
from omni_sdk.evaluation.predictor import Predictor
from omni_sdk.evaluation.ray_runner import RayExecutor
from omni_sdk.evaluation.report import collect
from omni_sdk.evaluation.runner import Evaluation


def test_predictor_travels_light(whole: Any) -> None:
    """A predictor that has loaded its models is sent without them."""
    predictor = Predictor(whole.plan)
    before = pickle.dumps(predictor)
    record = predictor(2)
    assert pickle.dumps(predictor) == before
    assert len(before) < 2000
    assert pickle.loads(before).plan == whole.plan
    assert record.scored == whole.results.rows[2]


def test_two_workers_make_the_whole(
    ray: Any,
    whole: Any,
    plan_for: Callable[[Path], Plan],
    tmp_path: Path,
    tree_of: Callable[[Path], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        plan = plan_for(tmp_path / "out")
        evaluation = Evaluation(plan)
        executor = RayExecutor(2)
        assert len(list(evaluation.run(executor))) == 4
        results = collect(evaluation)
        assert results is not None
        assert results.rows == whole.results.rows
        assert results.summary == whole.results.summary
        assert tree_of(plan.predictions) == tree_of(whole.plan.predictions)
        # A worker's error is the caller's error.
        broken = dataclasses.replace(plan, models=Models(bundle=str(tmp_path)))
        with pytest.raises(BundleError):
            list(executor(broken, [0]))
    finally:
        ray.shutdown()


def test_required_ray_is_required() -> None:
    """Where Ray cannot be imported, OMNI_REQUIRE_RAY=1 turns the skip into a failure."""
    without_ray = "import sys; sys.modules['ray'] = None; import pytest; sys.exit(pytest.main())"
    command = [sys.executable, "-c", without_ray, "-q", "-p", "no:cacheprovider"]
    command += [f"{__file__}::{test_two_workers_make_the_whole.__name__}"]
    outcomes = []
    for required in ("0", "1"):
        environment = os.environ | {"OMNI_REQUIRE_RAY": required}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        outcomes.append((done.returncode, done.stdout))
    assert (outcomes[0][0], "1 skipped" in outcomes[0][1]) == (0, True)
    assert outcomes[1][0] == 1
    assert "there is no Ray" in outcomes[1][1]
