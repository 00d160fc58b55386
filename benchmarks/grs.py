"""The reasoner's decoding against transformers' generate, and the variants of its decoder.

    python benchmarks/grs.py [--quick] [--json PATH] [--cache DIR] [--threads N] [--hidden H ..]

Random weights at hidden sizes 512, 1024 and 2048 (4 layers, heads of 128, MLP of four times the width, a
vocabulary of 8,192), batch 1, a prompt of 1,024 tokens (a question about a clip has 1,500 to 2,500). A
sample is the greedy completion of one prompt, timed in two parts: until the first logits, and from there
on. Rounds alternate all implementations. The limit shown is weight bytes over the memory bandwidth that a
plain copy reaches here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import OURS, Benchmark, Samples
from numpy.typing import NDArray
from omni_export.samples import Sample, make_request
from random_models import NUM_SPECIAL, thinker, thinker_bundle, with_variants

from omni_sdk.bundle import Bundle
from omni_sdk.config import GenerationConfig
from omni_sdk.engines.linked import start_linked
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.grs.request import ThinkerRequest
from omni_sdk.grs.thinker import GraphThinker

TRANSFORMERS = "transformers generate"
VARIANTS = ("fused", "int8", "fused-int8")
PROMPT = 1024


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no hidden size 2048")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--cache", type=Path, default=Path("bench_models"), help="exported graphs")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--hidden", type=int, action="append", help="repeatable")
    parser.add_argument("--prompt", type=int, default=PROMPT, help="tokens of the prompt")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = arguments.hidden or ([512, 1024] if arguments.quick else [512, 1024, 2048])
    bench = Benchmark(
        "grs",
        rounds=3,
        packages=("onnxruntime", "torch", "transformers"),
        clock="wall",
    )
    bandwidth = _bandwidth()
    print(f"a plain copy moves {bandwidth / 1e9:.1f} GB/s")
    for hidden in sizes:
        _compare(bench, arguments.cache, hidden, arguments.prompt, arguments.threads, bandwidth)
    return bench.finish(arguments.json)


def _compare(
    bench: Benchmark, cache: Path, hidden: int, prompt: int, threads: int, bandwidth: float
) -> None:
    model = thinker(hidden)
    bundle = with_variants(cache, thinker_bundle(cache, model, f"thinker-{hidden}"), VARIANTS)
    loader = OnnxLoader("cpu", threads=threads)
    thinkers = {OURS: GraphThinker(loader, bundle)}
    thinkers |= {name: GraphThinker(loader, bundle.with_variants(name)) for name in VARIANTS}
    request = make_request(bundle.grs, Sample(text=prompt))
    steps = 32 if hidden >= 2048 else 64
    names = [OURS, TRANSFORMERS, *list(thinkers)[1:]]
    prefill = {name: Samples() for name in names}
    decode = {name: Samples() for name in names}
    tokens: dict[str, NDArray[np.int64]] = {}
    for index in range(bench.rounds + 1):  # the first warms up
        for name in names if index % 2 == 0 else names[::-1]:
            if name == TRANSFORMERS:
                tokens[name], first, rest = _transformers(model, request, steps)
            else:
                tokens[name], first, rest = _ours(thinkers[name], request, steps)
            if index:
                _keep(prefill[name], first, 1)
                _keep(decode[name], rest, steps - 1)
    reference = tokens[TRANSFORMERS]
    quality = {n: f"{int((t == reference).sum())} of {steps} tokens" for n, t in tokens.items()}
    bench.record(f"hidden {hidden}: prompt of {prompt}", prefill)
    case = f"hidden {hidden}: one token"
    bench.record(case, decode, quality)
    bytes_read = {n: _weight_bytes(bundle, n) for n in thinkers}
    for name, size in bytes_read.items():
        limit = size / bandwidth
        found = statistics.median(decode[name].wall)
        print(
            f"  {name}: {size / 1e6:.0f} MB of weights, limit {1e3 * limit:.2f} ms, {found / limit:.2f}x"
        )
    for name in (OURS, "fused"):
        gain = bench.ratio(case, TRANSFORMERS, name)
        bench.bar_value(f"{case}: {name}, float32", gain, at_least=2.0)
        equal = float((tokens[name] == reference).mean())
        bench.bar_value(f"{case}: {name}, share of equal tokens", equal, at_least=1.0)
    for plain, quantised in ((OURS, "int8"), ("fused", "fused-int8")):
        gain = bench.ratio(case, plain, quantised)
        bench.bar_value(f"{case}: {quantised} over {plain}", gain, at_least=1.5)
    share = _outside(loader, bundle, request, steps)
    bench.bar_value(f"{case}: 3 % over work outside the graphs", 0.03 / share, at_least=1.0)


Times = tuple[float, float]  # wall, CPU seconds


def _keep(samples: Samples, times: Times, count: int) -> None:
    samples.wall.append(times[0] / count)
    samples.cpu.append(times[1] / count)


def _ours(
    thinker: GraphThinker, request: ThinkerRequest, steps: int
) -> tuple[NDArray[np.int64], Times, Times]:
    clock = _FirstToken()
    decoder = thinker._decoder
    thinker._decoder = _Told(decoder, clock)  # the first logits end the prefill
    try:
        (found,) = thinker.generate([request], GenerationConfig(max_new_tokens=steps))
    finally:
        thinker._decoder = decoder
    return found.token_ids, *clock.stop()


def _transformers(
    model: Any, request: ThinkerRequest, steps: int
) -> tuple[NDArray[np.int64], Times, Times]:
    ids = torch.from_numpy(request.input_ids)[None]
    clock = _FirstToken()

    def told(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        clock.mark()
        return scores

    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=steps,
            do_sample=False,
            suppress_tokens=list(range(NUM_SPECIAL)),
            logits_processor=[told],
        )
    return out[0, ids.shape[1] :].numpy(), *clock.stop()


class _FirstToken:
    """Times a completion in two parts: until the first logits, and from there on."""

    def __init__(self) -> None:
        self._start = self._first = self._now()
        self._marked = False

    @staticmethod
    def _now() -> Times:
        return time.perf_counter(), time.process_time()

    def mark(self) -> None:
        """Logits are there; only the first call counts."""
        if not self._marked:
            self._first, self._marked = self._now(), True

    def stop(self) -> tuple[Times, Times]:
        """Return wall and CPU seconds of the two parts."""
        end = self._now()
        return (
            (self._first[0] - self._start[0], self._first[1] - self._start[1]),
            (end[0] - self._first[0], end[1] - self._first[1]),
        )


class _Told:
    """An engine that tells a clock when a call is done."""

    def __init__(self, engine: Any, clock: _FirstToken) -> None:
        self._engine = engine
        self._clock = clock

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run, then tell."""
        found: dict[str, NDArray[Any]] = self._engine.run(inputs)
        self._clock.mark()
        return found

    def linked(self, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]) -> _Told:
        """Start a row of calls."""
        return _Told(start_linked(self._engine, links, first), self._clock)


def _outside(loader: OnnxLoader, bundle: Bundle, request: ThinkerRequest, steps: int) -> float:
    """Return the share of decoding that is not spent in the decoder's and the embedding's engine."""
    spent = {"inside": 0.0}

    class Timed:
        def __init__(self, engine: Any) -> None:
            self._engine = engine

        def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            start = time.perf_counter()
            found: dict[str, NDArray[Any]] = self._engine.run(inputs)
            spent["inside"] += time.perf_counter() - start
            return found

        def linked(self, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]) -> Timed:
            return Timed(start_linked(self._engine, links, first))

    class Loader:
        def load(self, bundle: Bundle, graph: str) -> Timed:
            return Timed(loader.load(bundle, graph))

    thinker = GraphThinker(Loader(), bundle)  # type: ignore[arg-type]
    shares = []
    for _ in range(3):
        spent["inside"] = 0.0
        start = time.perf_counter()
        thinker.generate([request], GenerationConfig(max_new_tokens=steps))
        shares.append(1 - spent["inside"] / (time.perf_counter() - start))
    return statistics.median(shares)


def _weight_bytes(bundle: Bundle, name: str) -> int:
    """Bytes that one decoding step reads: the decoder's weights, without the embedding table."""
    graph = bundle.graph("grs/decoder")
    entry = graph if name == OURS else graph.variants[name]
    files = (entry.file, *entry.data)
    return entry.weight_bytes or sum(bundle.manifest.files[f].size for f in files)


def _bandwidth() -> float:
    """Return the bytes per second that a copy of 256 MiB reads, at best of five."""
    source = np.ones(1 << 26, np.float32)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


if __name__ == "__main__":
    sys.exit(main())
