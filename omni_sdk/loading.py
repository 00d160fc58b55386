"""From a name to stages: which directory, which backend, which device."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omni_sdk.bundle.bundle import MANIFEST, Bundle
from omni_sdk.bundle.hub import resolve
from omni_sdk.bundle.memory_plan import MemoryPlan, apply_plan, parse_bytes, plan_memory
from omni_sdk.engines.base import EngineLoader
from omni_sdk.engines.gate import GatedLoader
from omni_sdk.engines.select import open_loader
from omni_sdk.errors import BundleError, EngineError, MemoryBudgetError
from omni_sdk.results import BundleInfo
from omni_sdk.stages import Grounder, Reasoner, Tracker
from omni_sdk.utils.devices import free_device_bytes, free_host_bytes

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "onnx", "tensorrt", "torch")
Stages = tuple["Reasoner | None", "Grounder | None", "Tracker | None", BundleInfo]


def load_stages(
    name_or_path: str | os.PathLike[str],
    *,
    device: str,
    backend: str,
    providers: Sequence[Any] | None,
    revision: str | None,
    local_files_only: bool,
    tracker: str | os.PathLike[str] | None,
    threads: int | None = None,
    variant: str | Sequence[str] = (),
    skip_parity: bool = False,
    memory_budget: int | str | None = None,
) -> Stages:
    """Load the stages of a bundle or, with backend "torch", of checkpoints.

    Raises:
        ValueError: an unknown backend.
        EngineError: the engine cannot run a graph.
        MemoryBudgetError: nothing fits `memory_budget`.
        ParityError: a graph computes something else on this machine (unless `skip_parity`).
        BundleError: neither a bundle nor (with backend "torch") a checkpoint.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    directory = resolve(name_or_path, revision=revision, local_files_only=local_files_only)
    variants = (variant,) if isinstance(variant, str) else tuple(variant)
    if backend == "torch":
        if variants or memory_budget is not None:
            raise ValueError("variant= and memory_budget= are for bundles, not for backend='torch'")
        if providers is not None:
            raise ValueError("providers= is for onnxruntime, not for backend='torch'")
        return _from_checkpoints(directory, tracker, device=device)
    if not (directory / MANIFEST).is_file() and (directory / "config.json").is_file():
        raise BundleError(
            f"{directory} is a checkpoint, not a bundle: pass backend='torch', or export it with "
            "`omni-export onnx`"
        )
    if tracker is not None:
        raise ValueError("tracker= is for backend='torch'; a bundle names its own tracker")
    bundle = Bundle.open(directory)
    loader = open_loader(backend, device=device, providers=providers, threads=threads)
    if memory_budget is not None:
        if variants:
            raise ValueError("memory_budget= chooses the variant itself; pass one of the two")
        plan = _plan_within(bundle, memory_budget, loader)
        bundle, variants = apply_plan(bundle, plan), plan.variants
    else:
        bundle = bundle.with_variants(*variants)
    check_backend(bundle, loader.backend, loader.device)
    stages = _from_bundle(bundle, GatedLoader(loader, skip=skip_parity))
    return *stages[:3], replace(stages[3], variants=variants)


def _plan_within(bundle: Bundle, budget: int | str, loader: EngineLoader) -> MemoryPlan:
    """Plan for a budget and say so."""
    if budget == "auto":
        free = free_device_bytes(loader.device) or free_host_bytes()
        if free is None:
            raise MemoryBudgetError(
                "memory_budget='auto': the free memory is not known here; name one"
            )
    else:
        free = parse_bytes(budget)
    plan = plan_memory(bundle, free, backend=loader.backend, device=loader.device)
    logger.info("%s", plan)
    return plan


def check_backend(bundle: Bundle, backend: str, device: str) -> None:
    """Refuse graphs that an engine or a device cannot run, before anything is loaded.

    Raises:
        EngineError: names the graph and what can run it.
    """
    kind = device.partition(":")[0]
    for name, graph in bundle.manifest.graphs.items():
        label = f"{name} ({graph.file}, {graph.precision})"
        if backend not in graph.backends:
            raise EngineError(
                f"{label} runs on {' and '.join(graph.backends)}, not on {backend}; choose another "
                f"variant, or backend={graph.backends[0]!r}"
            )
        # onnxruntime would run such nodes on the CPU, with copies to and fro for each of them.
        if kind in ("cpu", "cuda") and kind not in graph.devices:
            raise EngineError(
                f"{label} has kernels for {' and '.join(graph.devices)}, not for {device}; choose another "
                f"variant, or device={graph.devices[0]!r}"
            )


def _from_bundle(bundle: Bundle, loader: EngineLoader) -> Stages:
    reasoner: Reasoner | None = None
    grounder: Grounder | None = None
    tracker: Tracker | None = None
    if bundle.manifest.grs is not None:
        from omni_sdk.dus.grounder import ThinkerGrounder
        from omni_sdk.grs.processor import Processor
        from omni_sdk.grs.reasoner import ThinkerReasoner
        from omni_sdk.grs.thinker import GraphThinker

        thinker, processor = GraphThinker(loader, bundle), Processor.from_bundle(bundle)
        reasoner = ThinkerReasoner(thinker, processor)
        grounder = ThinkerGrounder(thinker, processor)
    if bundle.manifest.dus is not None:
        from omni_sdk.dus.sam2.tracker import Sam2Tracker

        tracker = Sam2Tracker.open(loader, bundle)
    manifest = bundle.manifest
    info = BundleInfo(manifest.name, manifest.version, loader.backend, loader.device)
    return reasoner, grounder, tracker, info


def _from_checkpoints(
    directory: Path, tracker: str | os.PathLike[str] | None, *, device: str
) -> Stages:
    from omni_sdk.dus.grounder import ThinkerGrounder
    from omni_sdk.grs.processor import Processor
    from omni_sdk.grs.reasoner import ThinkerReasoner
    from omni_sdk.hf.thinker import HfThinker
    from omni_sdk.hf.tracker import HfTracker

    thinker = HfThinker.from_checkpoint(directory, device=device)
    processor = Processor.from_directory(thinker.spec, directory)
    masks = None if tracker is None else HfTracker.from_checkpoint(resolve(tracker), device=device)
    info = BundleInfo(directory.name, "", "torch", device)
    return ThinkerReasoner(thinker, processor), ThinkerGrounder(thinker, processor), masks, info
