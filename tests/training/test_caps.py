"""trl and transformers are capped: what our trainers override of theirs is private and may change.

Raising a cap is one step: install the new version, run this file, read what changed in the methods that it
names, adapt `PARAMETERS` and the overrides.
"""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from omni_training.experiment.control import SupervisedTrainer
from omni_training.grpo.trainer import OmniGRPOTrainer
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
EPOCH = (
    "model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial ignore_keys_for_eval "
    "start_time resume_from_checkpoint epochs_trained steps_trained_in_current_epoch"
)
LOGPS = (
    "model input_ids attention_mask logits_to_keep batch_size compute_entropy compute_aux_loss pixel_values "
    "image_grid_thw num_images pixel_attention_mask spatial_shapes num_tiles image_sizes token_type_ids "
    "mm_token_type_ids image_position_ids"
)
PARAMETERS = {
    "_compute_loss": "model inputs",
    "_generate_and_score_completions": "inputs",
    "_get_grad_norm": "model grad_norm",
    "_get_output_dir": "trial",
    "_get_per_token_logps_and_entropies": LOGPS,
    "_get_train_sampler": "dataset",
    "_load_from_checkpoint": "resume_from_checkpoint model",
    "_run_epoch": EPOCH,
    "_save_checkpoint": "model trial",
    "_tokenize_prompts": "prompts",
}
"""Private method that we override -> its parameters in trl 1.16 and transformers 5.23."""
REPLACED = {"_get_output_dir"}
"""Those replaced on the object (`checkpoints.staged_checkpoint`), not in a class."""


def train_requirements() -> dict[str, Requirement]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = project["optional-dependencies"]["train"]
    return {r.name: r for r in map(Requirement, listed)}


def overridden(trainer: type[Any]) -> dict[str, Any]:
    """Return the private methods of trl and transformers that our classes override, by name."""
    ours = [c for c in trainer.__mro__ if c.__module__.startswith("omni_training.")]
    theirs = [c for c in trainer.__mro__ if c not in ours and c is not object]
    names = {n for c in ours for n in vars(c) if n.startswith("_") and not n.startswith("__")}
    found = {n: next((vars(c)[n] for c in theirs if n in vars(c)), None) for n in names}
    return {name: method for name, method in found.items() if inspect.isfunction(method)}


@pytest.mark.parametrize("name", ["trl", "transformers"])
def test_the_caps_hold_what_is_installed_and_end_before_the_next_minor_version(name: str) -> None:
    specifier = train_requirements()[name].specifier
    assert version(name) in specifier, f"{name} {version(name)} is outside {specifier}"
    (pinned,) = re.findall(
        rf"^{name}==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert pinned in specifier, f"constraints.txt pins {name} {pinned}, outside {specifier}"
    major, minor = (int(part) for part in pinned.split(".")[:2])
    assert f"{major}.{minor + 1}.0" not in specifier
    assert f"{major + 1}.0.0" not in specifier


@pytest.mark.parametrize("trainer", [OmniGRPOTrainer, SupervisedTrainer])
def test_private_methods_that_we_override_are_the_ones_we_know(trainer: type[Any]) -> None:
    methods = overridden(trainer)
    unknown = set(methods) - set(PARAMETERS)
    assert not unknown, f"{trainer.__name__} overrides {unknown}: add them to PARAMETERS"
    methods |= {name: getattr(trainer, name, None) for name in REPLACED}
    for name, method in methods.items():
        found = " ".join(list(inspect.signature(method).parameters)[1:]) if method else "missing"
        assert found == PARAMETERS[name], (
            f"trl {version('trl')} or transformers {version('transformers')} changed {name}: expected "
            f"({PARAMETERS[name]}), found ({found}); what overrides it in omni_training may be wrong"
        )


def test_nothing_that_we_override_is_gone() -> None:
    known = set(overridden(OmniGRPOTrainer)) | set(overridden(SupervisedTrainer)) | REPLACED
    gone = set(PARAMETERS) - known
    assert not gone, (
        f"neither trl {version('trl')} nor transformers {version('transformers')} has {gone}"
    )
