"""The reasoner's decoding against transformers' generate, and the variants of its decoder.

    python benchmarks/grs.py [--quick] [--json PATH] [--cache DIR] [--threads N] [--hidden H ..]
    python benchmarks/grs.py --device cuda [--model 3b] [--model 7b]      (not run yet)

Random weights at hidden sizes 512, 1024 and 2048 (4 layers, heads of 128, MLP of four times the width, a
vocabulary of 8,192), batch 1, a prompt of 1,024 tokens (a question about a clip has 1,500 to 2,500). A
sample is the greedy completion of one prompt, timed in two parts: until the first logits, and from there
on. Rounds alternate all implementations. The limit shown is weight bytes over the memory bandwidth that a
plain copy reaches here. --quick takes fewer rounds, and a prompt of 256 at hidden size 2048.

On a GPU the decoder has the published sizes of Qwen2.5-Omni's 3B and 7B, in float16 with fused attention,
and two limits are asked for: a step within 1.5 times of weight bytes over the bandwidth of a copy on the
device, and a prompt of 2,048 tokens at half the rate of a plain float16 product of the decoder's own shapes.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import OURS, Benchmark, Samples, make_parser
from numpy.typing import NDArray
from omni_export.samples import Sample, make_request
from random_models import (
    HEAD_DIM,
    NUM_SPECIAL,
    Sizes,
    small_sizes,
    thinker,
    thinker_bundle,
    with_variants,
)

from omni_sdk.bundle.bundle import Bundle
from omni_sdk.config import GenerationConfig
from omni_sdk.engines.linked import start_linked
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.grs.request import ThinkerRequest
from omni_sdk.grs.thinker import GraphThinker

TRANSFORMERS = "transformers generate"
VARIANTS = ("fused", "int8", "fused-int8")
PROMPT = 1024


PUBLISHED = {
    # hidden size, layers, key-value heads, width of the MLP, vocabulary
    "3b": Sizes(2048, 36, 2, 11008, 151936),
    "7b": Sizes(3584, 28, 4, 18944, 152064),
}
GPU_VARIANT = "fused-fp16"
GPU_PROMPT = 2048


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__, quick="fewer rounds, a shorter prompt")
    parser.add_argument("--cache", type=Path, default=Path("bench_models"), help="exported graphs")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--hidden", type=int, action="append", help="repeatable")
    parser.add_argument("--prompt", type=int, help=f"tokens of the prompt (default: {PROMPT})")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--model", action="append", choices=tuple(PUBLISHED), help="on a GPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quick = arguments.quick
    bench = Benchmark(
        "grs",
        rounds=1 if quick else 3,
        packages=("onnxruntime", "onnxruntime-gpu", "torch", "transformers"),
        clock="wall",
    )
    bench.environment |= {"device": arguments.device, "threads": arguments.threads}
    if arguments.device != "cpu":
        for name in arguments.model or tuple(PUBLISHED):
            _on_gpu(bench, arguments.cache, name, arguments.device)
        return bench.finish(arguments.json)
    bandwidth = _bandwidth()
    print(f"a plain copy moves {bandwidth / 1e9:.1f} GB/s")
    for hidden in arguments.hidden or [512, 1024, 2048]:
        prompt = arguments.prompt or (256 if quick and hidden >= 2048 else PROMPT)
        _compare(bench, arguments.cache, hidden, prompt, arguments.threads, bandwidth)
    return bench.finish(arguments.json)


def _on_gpu(bench: Benchmark, cache: Path, name: str, device: str) -> None:
    """Hold decode and prefill of a published size against what the device can do."""
    sizes = PUBLISHED[name]
    bundle = with_variants(
        cache, thinker_bundle(cache, thinker(sizes), f"thinker-{name}"), (GPU_VARIANT,)
    )
    model = GraphThinker(OnnxLoader(device), bundle.with_variants(GPU_VARIANT))
    request = make_request(bundle.grs, Sample(text=GPU_PROMPT))
    prefill, decode = Samples(), Samples()
    for index in range(bench.rounds + 1):  # the first warms up
        _, first, rest = _ours(model, request, 64)
        if index:
            _keep(prefill, first, 1)
            _keep(decode, rest, 63)
    bench.record(f"{name}: prompt of {GPU_PROMPT}", {OURS: prefill})
    bench.record(f"{name}: one token", {OURS: decode})
    limit = _weight_bytes(bundle, GPU_VARIANT) / _device_bandwidth(device)
    found = statistics.median(decode.wall)
    bench.bar_value(f"{name}: decode, 1.5 times the limit", 1.5 * limit / found, at_least=1.0)
    products = _product_seconds(sizes, device)
    found = statistics.median(prefill.wall)
    bench.bar_value(f"{name}: prefill, products alone over all", products / found, at_least=0.5)


def _device_bandwidth(device: str) -> float:
    """Return the bytes per second that a copy of 1 GiB on the device reads and writes, at best of five."""
    source = torch.ones(1 << 28, device=device)
    target = torch.empty_like(source)
    best = min(_device_seconds(device, lambda: target.copy_(source)) for _ in range(5))
    return 2 * source.nbytes / best


def _product_seconds(sizes: Sizes, device: str) -> float:
    """Return the time of a prompt's matrix products alone, in float16, at best of five each."""
    heads = sizes.hidden + 2 * sizes.kv_heads * HEAD_DIM
    shapes = ((sizes.hidden, heads), (sizes.hidden, sizes.hidden))
    shapes += ((sizes.hidden, 2 * sizes.mlp), (sizes.mlp, sizes.hidden))
    total = 0.0
    for inputs, outputs in shapes:
        x = torch.ones(GPU_PROMPT, inputs, device=device, dtype=torch.float16)
        weight = torch.ones(inputs, outputs, device=device, dtype=torch.float16)
        total += min(_device_seconds(device, lambda x=x, w=weight: x @ w) for _ in range(5))
    return total * sizes.layers


def _device_seconds(device: str, work: Callable[[], object]) -> float:
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _compare(
    bench: Benchmark, cache: Path, hidden: int, prompt: int, threads: int, bandwidth: float
) -> None:
    model = thinker(small_sizes(hidden))
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
    rows = {row["implementation"]: row for row in bench.rows if row["case"] == case}
    for name in thinkers:
        size = _weight_bytes(bundle, name)
        limit = size / bandwidth
        rows[name] |= {"gain": bench.ratio(case, TRANSFORMERS, name), "limit_s": limit}
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
    # The first logits end the prefill.
    thinker._decoder = _Watched(decoder, lambda _: clock.mark())
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


class _Watched:
    """An engine that reports the wall seconds of each call when it is done."""

    def __init__(self, engine: Any, report: Callable[[float], None]) -> None:
        self._engine = engine
        self._report = report

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run, then report."""
        start = time.perf_counter()
        found: dict[str, NDArray[Any]] = self._engine.run(inputs)
        self._report(time.perf_counter() - start)
        return found

    def linked(self, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]) -> _Watched:
        """Start a row of calls."""
        return _Watched(start_linked(self._engine, links, first), self._report)


def _outside(loader: OnnxLoader, bundle: Bundle, request: ThinkerRequest, steps: int) -> float:
    """Return the share of decoding that is not spent in the decoder's and the embedding's engine."""
    inside: list[float] = []

    class Loader:
        def load(self, bundle: Bundle, graph: str) -> _Watched:
            return _Watched(loader.load(bundle, graph), inside.append)

    thinker = GraphThinker(Loader(), bundle)  # type: ignore[arg-type]
    shares = []
    for _ in range(3):
        inside.clear()
        start = time.perf_counter()
        thinker.generate([request], GenerationConfig(max_new_tokens=steps))
        shares.append(1 - sum(inside) / (time.perf_counter() - start))
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
