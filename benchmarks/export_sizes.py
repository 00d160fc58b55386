"""What exporting the published sizes takes: time, peak memory and the parity that comes out.

Writes checkpoints with random weights in the published layout, exports each with `omni-export onnx` in a
process of its own, and watches that process: anonymous memory is what a machine must have, file-backed
memory (mapped weights) is what it may take back. Every graph is held against TensorRT's operator list. The
3B thinker needs 35 GB of disk, each of its variants up to 25 GB more while it is made.

    python benchmarks/export_sizes.py --work DIR [--only 3b] [--variant int8 ..] [--json PATH]
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from harness import OURS, Benchmark, make_parser
from omni_export.tensorrt_operators import objections
from random_models import sam2_config
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Sam2VideoModel,
)
from transformers.initialization import no_init_weights

SHARD_BYTES = 2 << 30
POOL = 1 << 26  # numbers drawn once and read at many places: memory and time depend on shapes only
TOKENS = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|AUDIO|>": 151646,
    "<|audio_bos|>": 151647,
    "<|audio_eos|>": 151648,
    "<|vision_bos|>": 151652,
    "<|vision_eos|>": 151653,
    "<|IMAGE|>": 151655,
    "<|VIDEO|>": 151656,
}
THINKER_3B: dict[str, Any] = {
    "model_type": "qwen2_5_omni_thinker",
    "audio_config": {
        "model_type": "qwen2_5_omni_audio_encoder", "num_mel_bins": 128, "encoder_layers": 32,
        "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "d_model": 1280,
        "max_source_positions": 1500, "n_window": 100, "output_dim": 2048,
    },
    "vision_config": {
        "model_type": "qwen2_5_omni_vision_encoder", "depth": 32, "hidden_size": 1280,
        "intermediate_size": 3420, "num_heads": 16, "in_channels": 3, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
        "out_hidden_size": 2048, "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "text_config": {
        "model_type": "qwen2_5_omni_text", "vocab_size": 151936, "hidden_size": 2048,
        "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "tie_word_embeddings": False,
        "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
    },
    "audio_token_index": TOKENS["<|AUDIO|>"],
    "image_token_index": TOKENS["<|IMAGE|>"],
    "video_token_index": TOKENS["<|VIDEO|>"],
    "audio_start_token_id": TOKENS["<|audio_bos|>"],
    "audio_end_token_id": TOKENS["<|audio_eos|>"],
    "vision_start_token_id": TOKENS["<|vision_bos|>"],
    "vision_end_token_id": TOKENS["<|vision_eos|>"],
    "pad_token_id": TOKENS["<|endoftext|>"],
    "position_id_per_seconds": 25,
    "seconds_per_chunk": 2,
}  # fmt: skip
PREPROCESSOR: dict[str, Any] = {
    "chunk_length": 300, "feature_size": 128, "hop_length": 160, "n_fft": 400,
    "sampling_rate": 16000, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One export, or one variant of it.

    Attributes:
        size_mb: of the bundle, or of the variant's graphs.
        replaced_mb: of the graphs that a variant's stand in for; 0 for a bundle.
        parity: every row of the manifest that belongs to it.
        errors: the parity that the README's table shows, see `_errors`.
    """

    model: str
    parameters: int
    seconds: float
    peak_anonymous_mb: float
    peak_resident_mb: float
    size_mb: float
    replaced_mb: float
    parity: dict[str, float]
    errors: dict[str, float]
    tensorrt_objections: list[str]


def thinker_checkpoint(directory: Path) -> int:
    """Write a Qwen2.5-Omni-3B-size thinker in Omni-R1's layout; return its number of parameters."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(THINKER_3B))
    (directory / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (directory / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    words = {f"w{i}": i for i in range(1000)} | TOKENS
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(directory / "tokenizer.json"))
    with torch.device("meta"), no_init_weights():
        model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(
            Qwen2_5OmniThinkerConfig(**json.loads(json.dumps(THINKER_3B)))
        )
    shapes = {_published(n): tuple(p.shape) for n, p in model.named_parameters()}
    index: dict[str, str] = {}
    for number, shard in enumerate(_shards(shapes)):
        file = f"model-{number:05}.safetensors"
        save_file(_random(shard), directory / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return sum(math.prod(shape) for shape in shapes.values())


def _published(name: str) -> str:
    for new, old in (("language_model.", "model."), ("visual.", "visual."), ("audio_tower.",) * 2):
        name = name.replace(f"model.{new}", old, 1) if name.startswith(f"model.{new}") else name
    return name


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in shapes.items():
        if shard and size + 2 * math.prod(shape) > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += 2 * math.prod(shape)
    yield shard


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(0))
    tensors = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            tensors[name] = torch.full(shape, 0.0 if name.endswith("bias") else 1.0).bfloat16()
            continue
        count = math.prod(shape)
        scale = 1.0 if "embed_tokens" in name else math.prod(shape[1:]) ** -0.5
        first = sum(name.encode()) * 7919 % (POOL // 2)
        numbers = pool[first:].repeat(-(-count // (POOL - first)))[:count]
        tensors[name] = (numbers * scale).bfloat16().reshape(shape)
    return tensors


def sam2_checkpoint(size: str, directory: Path) -> int:
    """Write a SAM 2.1 of a published size in transformers' layout; return its number of parameters."""
    config = sam2_config(size)
    torch.manual_seed(0)
    model = Sam2VideoModel(config)
    with torch.no_grad():
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(
            model.shared_image_embedding.positional_embedding
        )
    model.save_pretrained(directory)
    return sum(p.numel() for p in model.parameters())


def export(name: str, parameters: int, arguments: list[str], bundle: Path) -> Row:
    """Run `omni-export onnx`."""
    cost = _watch("onnx", "--out", str(bundle), *arguments)
    manifest = json.loads((bundle / "manifest.json").read_text())
    files = [entry["file"] for entry in manifest["graphs"].values()]
    size = sum(f.stat().st_size for f in bundle.rglob("*") if f.is_file())
    return _row(name, parameters, cost, (size, 0), manifest["parity"], bundle, files)


def variant(name: str, parameters: int, bundle: Path, out: Path) -> Row:
    """Run `omni-export variants` for one variant, NAME@VARIANT: it is loaded, and 64 tokens are compared."""
    made = name.partition("@")[2]
    cost = _watch("variants", str(bundle), "--out", str(out), "--variant", made)
    manifest = json.loads((out / "manifest.json").read_text())
    originals = [g for g in manifest["graphs"].values() if made in g["variants"]]
    graphs = [g["variants"][made] for g in originals]
    rows = [r for r in manifest["parity"] if f"@{made}" in r["subject"]]
    sizes = _size(out, graphs), _size(bundle, originals)
    return _row(name, parameters, cost, sizes, rows, out, [g["file"] for g in graphs])


def _size(bundle: Path, graphs: list[dict[str, Any]]) -> int:
    """Return the bytes of graphs and their data, as a manifest names them."""
    return sum((bundle / file).stat().st_size for g in graphs for file in (g["file"], *g["data"]))


def _errors(parity: list[dict[str, Any]]) -> dict[str, float]:
    """Sum parity rows up.

    Returns:
        The greatest error of a graph ("worst_graph"; the memory encoder rounds through bfloat16 and stands
        for itself), one less the tracked clip's least IoU, and how many greedy tokens of a decoder's
        variant differ; what was not compared is left out.
    """
    errors: dict[str, float] = {}
    for row in parity:
        subject, _, rest = row["subject"].partition("@")
        if rest.endswith(": tokens"):
            name = "different_tokens"
        elif ":" in row["subject"]:  # whole completions, tokens on calibration clips
            continue
        elif subject == "dus/memory_encoder":
            name = "memory_encoder"
        elif subject == "tracked clip":
            name = "tracked_clip"
        else:
            name = "worst_graph"
        errors[name] = max(errors.get(name, 0.0), row["value"])
    return errors


def _row(
    name: str,
    parameters: int,
    cost: tuple[float, float, float],
    sizes: tuple[int, int],
    parity: list[dict[str, Any]],
    directory: Path,
    graphs: list[str],
) -> Row:
    return Row(
        name,
        parameters,
        *cost,
        size_mb=sizes[0] / 1e6,
        replaced_mb=sizes[1] / 1e6,
        parity={f"{r['subject']}: {r['measure']}": r["value"] for r in parity},
        errors=_errors(parity),
        tensorrt_objections=[
            f"{file}: {why}"
            for file in graphs
            for why in objections(onnx.load(directory / file, load_external_data=False))
        ],
    )


def _watch(*arguments: str) -> tuple[float, float, float]:
    """Run `omni-export`; return its seconds, and its peaks of anonymous and resident memory in MiB."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "omni_export.cli", *arguments])
    anonymous = resident = 0
    while process.poll() is None:
        status = _status(process.pid)
        anonymous = max(anonymous, status.get("RssAnon", 0))
        resident = max(resident, status.get("VmHWM", 0))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"omni-export {' '.join(arguments)}: ended with {process.returncode}")
    return time.monotonic() - started, anonymous / 1024, resident / 1024


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {k: int(v.split()[0]) for k, v in pairs if v.strip().endswith("kB")}


def _tell(row: Row) -> None:
    print(
        f"{row.model}: {row.parameters / 1e6:.0f} M parameters, {row.seconds:.0f} s, peak "
        f"{row.peak_anonymous_mb / 1024:.1f} GiB anonymous ({row.peak_resident_mb / 1024:.1f} with "
        f"mapped files), {row.size_mb / 1e3:.2f} GB"
    )
    for subject, value in row.parity.items():
        print(f"    {subject} {value:.2g}")
    print(f"    TensorRT's operator list: {row.tensorrt_objections or 'no objection'}", flush=True)


def main() -> int:
    parser = make_parser(__doc__, quick=None)
    parser.add_argument("--work", type=Path, required=True, help="directory for what is written")
    parser.add_argument("--only", choices=("3b", "tiny", "large"), action="append")
    parser.add_argument("--variant", action="append", default=[], help="to make of each bundle")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only or ("tiny", "large", "3b"):
        work = arguments.work / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        checkpoint, bundle = work / "checkpoint", work / "bundle"
        if name == "3b":
            count, half = thinker_checkpoint(checkpoint), "--grs"
        else:
            count, half = sam2_checkpoint(name, checkpoint), "--dus"
        options = [half, str(checkpoint), f"{half}-license", "apache-2.0"]
        rows.append(export(name, count, options, bundle))
        _tell(rows[-1])
        shutil.rmtree(checkpoint)
        for made in arguments.variant:
            rows.append(variant(f"{name}@{made}", count, bundle, work / "variant"))
            _tell(rows[-1])
            shutil.rmtree(work / "variant")
        shutil.rmtree(work)
    packages = ["torch", "transformers", "onnxruntime", "onnx"]
    bench = Benchmark("export_sizes", rounds=1, packages=packages)
    bench.rows = [{"case": row.model, "implementation": OURS, **asdict(row)} for row in rows]
    return bench.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
