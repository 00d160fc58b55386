"""From a name to stages: which directory, which backend, which device."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from omni_sdk.bundle.bundle import MANIFEST, Bundle
from omni_sdk.bundle.hub import resolve
from omni_sdk.bundle.memory_plan import MemoryPlan, apply_plan, parse_bytes, plan_memory
from omni_sdk.config import ModelOptions
from omni_sdk.engines.base import EngineLoader
from omni_sdk.engines.gate import GatedLoader
from omni_sdk.engines.select import open_loader
from omni_sdk.errors import BackendUnavailableError, BundleError, EngineError, MemoryBudgetError
from omni_sdk.results import BundleInfo
from omni_sdk.stages import Grounder, Reasoner, Tracker
from omni_sdk.utils.devices import free_device_bytes, free_host_bytes

logger = logging.getLogger(__name__)

Stages = tuple["Reasoner | None", "Grounder | None", "Tracker | None", BundleInfo]


def load_stages(name_or_path: str | os.PathLike[str], options: ModelOptions) -> Stages:
    """Load the stages of a bundle or, with backend "torch", of checkpoints.

    Raises:
        OptionError: no such device, or a memory budget that is no size.
        EngineError: the engine cannot run a graph, or the device is not there.
        MemoryBudgetError: nothing fits `memory_budget`.
        ParityError: a graph computes something else on this machine (unless `skip_parity`).
        BundleError: neither a bundle nor (with backend "torch") a checkpoint.
        BackendUnavailableError: the backend's library is not installed.
    """
    directory = resolve(
        name_or_path, revision=options.revision, local_files_only=options.local_files_only
    )
    if options.backend == "torch":
        return _from_checkpoints(directory, options)
    if not (directory / MANIFEST).is_file() and (directory / "config.json").is_file():
        raise BundleError(
            f"{directory} is a checkpoint, not a bundle: pass backend='torch', or export it with "
            "`omni-export onnx`"
        )
    bundle = Bundle.open(directory)
    loader = open_loader(
        options.backend,
        device=options.device,
        providers=options.providers,
        threads=options.threads,
    )
    variants = options.variant
    if options.memory_budget is not None:
        plan = _plan_within(bundle, options.memory_budget, loader)
        bundle, variants = apply_plan(bundle, plan), plan.variants
    else:
        bundle = bundle.with_variants(*variants)
    check_backend(bundle, loader.backend, loader.device)
    stages = _from_bundle(bundle, GatedLoader(loader, skip=options.skip_parity))
    return *stages[:3], replace(stages[3], variants=variants)


def _plan_within(bundle: Bundle, budget: float | str, loader: EngineLoader) -> MemoryPlan:
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


def _from_checkpoints(directory: Path, options: ModelOptions) -> Stages:
    from omni_sdk.dus.grounder import ThinkerGrounder
    from omni_sdk.grs.processor import Processor
    from omni_sdk.grs.reasoner import ThinkerReasoner

    try:
        from omni_sdk.hf.devices import torch_device
        from omni_sdk.hf.thinker import HfThinker
        from omni_sdk.hf.tracker import HfTracker
    except ImportError as e:
        raise BackendUnavailableError(
            f"backend 'torch' needs torch and transformers ({e}): pip install 'omni-sdk[torch]'"
        ) from e
    device = torch_device(options.device)
    # The small one first: a wrong path is told before the large one has been read.
    masks = None
    if options.tracker is not None:
        folder = resolve(options.tracker, local_files_only=options.local_files_only)
        masks = HfTracker.from_checkpoint(folder, device=device)
    thinker = HfThinker.from_checkpoint(directory, device=device)
    processor = Processor.from_directory(thinker.spec, directory)
    info = BundleInfo(directory.name, "", "torch", device)
    return ThinkerReasoner(thinker, processor), ThinkerGrounder(thinker, processor), masks, info
