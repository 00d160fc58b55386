from __future__ import annotations

import dataclasses
import pickle
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
    whole: Any,
    plan_for: Callable[[Path], Plan],
    tmp_path: Path,
    tree_of: Callable[[Path], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = pytest.importorskip("ray", reason="needs ray: pip install 'omni-sdk[ray]'")
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
