"""Golden inputs: does a graph give on this machine what it gave where it was exported?

The inputs of a graph follow from its settings by a fixed integer hash (no random generator whose stream a
library may change), so only outputs are stored: up to `MAX_VALUES` of each, evenly spread. An engine that
computes something else (a wrong kernel, a broken driver, a plan for another GPU) is refused by
`omni_sdk.engines.gate` before it answers anybody.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import BundleError
from omni_sdk.graphs.windows import vision_layout

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.manifest import DusSpec, GraphSpec, GrsSpec

Arrays = dict[str, NDArray[Any]]
MAX_VALUES = 4096
MAX_FILE_BYTES = 64 << 20
_LENGTH = 8  # tokens of the decoder's prompt
_SCALE = 3**0.5  # uniform in [-sqrt 3, sqrt 3] has unit variance


def hashed(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return numbers of zero mean and unit variance, the same on every machine.

    Source of the hash: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
    """
    with np.errstate(over="ignore"):
        x = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed << 32)
        x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    unit = (x >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return ((2 * unit - 1) * np.float32(_SCALE)).reshape(shape)


def golden_inputs(bundle: Bundle, graph: str) -> dict[str, Arrays]:
    """Return named calls of a graph: inputs by name, of small and valid sizes.

    Raises:
        BundleError: nothing is known of a graph of this name.
    """
    if graph == "grs/decoder":
        return _decoder(bundle.grs, bundle.graph(graph))
    if graph in _GRS:
        return {"call": _GRS[graph](bundle.grs)}
    if graph == "dus/mask_decoder":
        return {"call": _generic(bundle, graph) | _clicks(bundle.dus)}
    if graph in _DUS:
        return {"call": _generic(bundle, graph)}
    raise BundleError(f"no golden inputs are defined for graph {graph!r}")


def golden_outputs(run: Callable[[Arrays], Arrays], calls: dict[str, Arrays]) -> Arrays:
    """Run the calls by an engine's `run`; return up to `MAX_VALUES` of every output under "CALL/OUTPUT".

    A value that is not finite anywhere in an output makes its first sampled value NaN, so that it is seen.
    """
    found: Arrays = {}
    for call, inputs in calls.items():
        for name, value in run(inputs).items():
            flat = np.ravel(value).astype(np.float32)
            sample = flat[:: max(1, -(-len(flat) // MAX_VALUES))].copy()
            if not np.isfinite(flat).all():
                sample[0] = np.nan
            found[f"{call}/{name}"] = sample
    return found


def golden_error(found: Arrays, reference: Arrays) -> tuple[float, str]:
    """Return the greatest difference in standard deviations of the reference, and the output that has it.

    Outputs that are missing, of another size or not finite count as infinitely far.
    """
    worst, where = 0.0, ""
    for name in sorted(found.keys() | reference.keys()):
        a, b = found.get(name), reference.get(name)
        if a is None or b is None or a.shape != b.shape:
            return float("inf"), name
        if not len(b):
            continue
        error = float(np.abs(a - b).max() / (b.std() or 1.0))
        if not error <= worst:  # NaN as well
            worst, where = (error if np.isfinite(error) else float("inf")), name
    return worst, where


def write_golden(path: Path, outputs: Arrays) -> None:
    """Write outputs as .npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **outputs)  # type: ignore[arg-type]


def read_golden(path: Path) -> Arrays:
    """Read outputs.

    Raises:
        BundleError: not an .npz file of float32 arrays, or larger than `MAX_FILE_BYTES` unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_FILE_BYTES:
            raise BundleError(f"{path}: {size} bytes unpacked, at most {MAX_FILE_BYTES} are read")
        with np.load(path, allow_pickle=False) as file:
            values = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
        if isinstance(e, BundleError):
            raise
        raise BundleError(f"{path}: not an .npz file of golden outputs ({e})") from e
    for name, value in values.items():
        if value.dtype != np.float32 or value.ndim != 1:
            raise BundleError(
                f"{path}: {name} is {value.dtype} {value.shape}, expected (n,) float32"
            )
    return values


def _vision(spec: GrsSpec) -> Arrays:
    vision = spec.vision
    side = vision.window_size // vision.patch_size // vision.merge_size * vision.merge_size
    grid = (1, side + vision.merge_size, side)  # windows that are full, and some that are not
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    pixels = hashed((grid[1] * grid[2], width), 1)
    return {"pixel_values": pixels, **vision_layout([grid], vision)}


def _audio(spec: GrsSpec) -> Arrays:
    width = 2 * spec.audio.n_window
    mel = hashed((2, spec.audio.num_mel_bins, width), 2)
    mel[1, :, width // 2 :] = 0
    return {"mel": mel, "lengths": np.array([width, width // 2], np.int64)}


def _embed(spec: GrsSpec) -> Arrays:
    ids = np.linspace(0, spec.decoder.vocab_size - 1, 2 * _LENGTH).astype(np.int64)
    return {"input_ids": ids[None]}


def _decoder(spec: GrsSpec, graph: GraphSpec) -> dict[str, Arrays]:
    """A prompt without a cache, and a step on one: the two ways in which the decoder is called."""
    decoder = spec.decoder
    calls = {}
    for call, length, past in (("prefill", _LENGTH, 0), ("step", 1, _LENGTH)):
        places = np.arange(past, past + length)
        shape = (1, decoder.num_kv_heads, past, decoder.head_dim)
        inputs: Arrays = {
            "inputs_embeds": hashed((1, length, decoder.hidden_size), 3),
            "attention_mask": np.ones((1, past + length), np.int64),
            "position_ids": np.tile(places, (3, 1, 1)),
        }
        past_tensors = [t for t in graph.inputs if t.name.startswith("past.")]
        inputs |= {t.name: hashed(shape, 4 + i).astype(t.dtype) for i, t in enumerate(past_tensors)}
        calls[call] = inputs
    return calls


def _generic(bundle: Bundle, graph: str) -> Arrays:
    """Fill a tracker graph's inputs by dtype; N = 1 object, T = 2 memories, P = 2 pointers, K = 2 points."""
    sizes = {"N": 1, "T": 2, "P": 2, "K": 2}
    inputs: Arrays = {}
    for seed, tensor in enumerate(bundle.graph(graph).inputs, 1000):
        try:
            shape = tuple(a if isinstance(a, int) else sizes[a] for a in tensor.axes)
        except KeyError as e:
            raise BundleError(f"{graph}: {tensor.name} has an unknown axis {e}") from e
        if tensor.dtype == "float32":
            inputs[tensor.name] = hashed(shape, seed)
        elif tensor.dtype == "bool":
            inputs[tensor.name] = np.zeros(shape, np.bool_)
        else:
            inputs[tensor.name] = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return inputs


def _clicks(spec: DusSpec) -> Arrays:
    """A box, of whose three masks the best is taken.

    Asked for one mask, SAM 2 falls back on those three where its own is not stable: a choice that the least
    difference can turn. Trained decoders came near it on these inputs, and float16 then gave another mask.
    """
    low, high = 0.25 * spec.image_size, 0.7 * spec.image_size
    return {
        "multimask": np.ones(1, np.bool_),
        "point_coords": np.array([[[low, low], [high, high]]], np.float32),
        "point_labels": np.array([[2, 3]], np.int64),
    }


_GRS = {"grs/vision": _vision, "grs/audio": _audio, "grs/embed": _embed}
_DUS = ("dus/image_encoder", "dus/memory_attention", "dus/memory_encoder")
