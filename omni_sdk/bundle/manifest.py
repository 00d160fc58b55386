"""What a bundle's manifest.json says, as dataclasses. See design: nothing about a model is hard-coded.

`grs` describes the reasoner and grounder (one model, two prompts), `dus` the tracker. Either may be null:
a bundle may hold one half.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: as in the graph.
        dtype: numpy name, e.g. "float32".
        axes: for each dimension its size, or the name of a dynamic axis.
    """

    name: str
    dtype: str
    axes: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class GraphVariant:
    """Another file for the same graph, with the same inputs and outputs.

    Attributes:
        file: relative to the bundle.
        precision: of the weights and the arithmetic, e.g. "float16" or "int8 weights, blocks of 32".
        backends: engines that can run it: "onnx", "tensorrt".
        data: external data files.
        cache_dtype: of a decoder's key-value cache where it is not that of the graph, e.g. "float16".
        golden: .npz file of what the golden inputs give; see `omni_sdk.graphs.golden`.
        golden_tolerance: how far a machine may be from it.
        weight_bytes: memory that the weights take once loaded; 0: as much as the files.
        left_padding: a decoder is right for batches that are padded on the left.
        devices: kinds of device that have kernels for it.
    """

    file: str
    precision: str
    backends: tuple[str, ...]
    data: tuple[str, ...] = ()
    cache_dtype: str | None = None
    golden: str | None = None
    golden_tolerance: float = 1e-2
    weight_bytes: int = 0
    left_padding: bool = True
    devices: tuple[str, ...] = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One ONNX graph.

    Attributes:
        file: relative to the bundle.
        inputs: in order.
        outputs: in order.
        data: external data files.
        precision: of the weights and the arithmetic.
        backends: engines that can run it.
        variants: other files of the same graph by name ("fp16", "int8", ..). Their rows among the
            manifest's parity have the subject "GRAPH@VARIANT".
        golden: .npz file of what the golden inputs give; see `omni_sdk.graphs.golden`.
        golden_tolerance: how far a machine may be from it.
        weight_bytes: memory that the weights take once loaded; 0: as much as the files.
        left_padding: a decoder is right for batches that are padded on the left.
        form: how the graph was written, where the exporter had a choice.
        devices: kinds of device that have kernels for it.
    """

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    data: tuple[str, ...] = ()
    precision: str = "float32"
    backends: tuple[str, ...] = ("onnx", "tensorrt")
    variants: dict[str, GraphVariant] = field(default_factory=dict)
    golden: str | None = None
    golden_tolerance: float = 1e-2
    weight_bytes: int = 0
    left_padding: bool = True
    form: str = ""
    devices: tuple[str, ...] = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file's size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class VisionSpec:
    """How pixels become patches (upstream: Qwen2VLImageProcessor, Qwen2_5OmniVisionEncoderConfig).

    Attributes:
        patch_size: side of a patch in pixels.
        merge_size: patches per side that become one token.
        temporal_patch_size: frames per patch.
        window_size: side in pixels of an attention window.
        image_mean: per RGB channel, of values in [0, 1].
        image_std: likewise.
        video_pixels: least and most pixels (height * width) of a frame shown to the reasoner.
        image_pixels: least and most pixels of an image shown to the grounder.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    window_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    video_pixels: tuple[int, int]
    image_pixels: tuple[int, int]


@dataclass(frozen=True, slots=True)
class AudioSpec:
    """How sound becomes log-mel chunks (upstream: WhisperFeatureExtractor, Qwen2_5OmniAudioEncoder).

    Attributes:
        sampling_rate: in Hz.
        n_fft: samples per Fourier window.
        hop_length: samples between mel frames.
        num_mel_bins: mel bands (0 to 8 kHz, slaney).
        chunk_seconds: shorter sounds are padded with zeros to this length before the transform, as
            upstream does (it decides how the last frame sees the end of the sound).
        n_window: half of the mel frames per attention chunk.
        max_seconds: longer sounds are cut.
    """

    sampling_rate: int
    n_fft: int
    hop_length: int
    num_mel_bins: int
    chunk_seconds: int
    n_window: int
    max_seconds: float


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """Token ids with a meaning. `suppress` are never generated (media placeholders and the like)."""

    pad: int
    eos: tuple[int, ...]
    image: int
    video: int
    audio: int
    vision_start: int
    vision_end: int
    audio_start: int
    audio_end: int
    suppress: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """Shapes of the decoder and its positions (upstream: Qwen2_5OmniTextConfig, thinker config)."""

    hidden_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    position_id_per_seconds: int
    seconds_per_chunk: float


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """Which frames the reasoner sees and how it is told their times.

    Attributes:
        fps: real frames per second aimed at before clamping to the two bounds below.
        min_frames: fewest frames (a source with fewer frames gives all it has).
        max_frames: most frames.
        strategy: "linspace": first and last frame included (the authors'); "bins": the first frame
            of each of N equal spans.
        virtual_fps: the virtual clock's rate; null: the model is told real times.
        audio_in_video: sound tokens are interleaved with the frames' (real time on both).
        missing_audio: "omit" the sound section or feed "silence" where a source has no sound.
    """

    fps: float
    min_frames: int
    max_frames: int
    strategy: Literal["linspace", "bins"]
    virtual_fps: float | None
    audio_in_video: bool
    missing_audio: Literal["omit", "silence"]

    def __post_init__(self) -> None:
        if not 1 <= self.min_frames <= self.max_frames or self.fps <= 0:
            raise ValueError("need 1 <= min_frames <= max_frames and fps > 0")


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """Named templates of `omni_sdk.grs.prompts` and generation defaults.

    Attributes:
        system: the system turn; null: none.
        reason: template of a query for segmentation.
        ask: template of a plain question.
        ground: template of the grounder's instruction.
        max_new_tokens: default bound of a completion.
        ground_max_new_tokens: likewise for the grounder.
    """

    system: str | None
    reason: str
    ask: str
    ground: str
    max_new_tokens: int
    ground_max_new_tokens: int


@dataclass(frozen=True, slots=True)
class TableSpec:
    """Token embeddings as a file that is mapped into memory in place of the graph "grs/embed".

    Attributes:
        file: relative to the bundle: rows of `DecoderSpec.hidden_size` numbers, little-endian, no header.
        dtype: "float16" or "float32".
        rows: one per token id.
    """

    file: str
    dtype: str
    rows: int


@dataclass(frozen=True, slots=True)
class GrsSpec:
    """All settings of the reasoner and the grounder.

    `embedding` is null where the bundle has the graph "grs/embed".
    """

    vision: VisionSpec
    audio: AudioSpec
    tokens: TokenSpec
    decoder: DecoderSpec
    sampling: SamplingSpec
    prompts: PromptSpec
    embedding: TableSpec | None = None


@dataclass(frozen=True, slots=True)
class DusSpec:
    """All settings of the tracker (upstream: Sam2VideoConfig).

    Attributes:
        image_size: side in pixels of the square input.
        image_mean: per RGB channel, of values in [0, 1].
        image_std: likewise.
        hidden_size: channels of the image features.
        memory_size: channels of a memory.
        num_memories: temporal slots, the prompted one included (SAM 2: 7).
        max_object_pointers: most pointers attended to (SAM 2: 16).
        no_memory_embedding: .npy file, (hidden_size,) float32, added to features of a frame without
            memories.
    """

    image_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    hidden_size: int
    memory_size: int
    num_memories: int
    max_object_pointers: int
    no_memory_embedding: str


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """How weights were made: the command that makes them again, its seed, and how many weights there are."""

    command: str
    seed: int
    parameters: int


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Where a half came from: a checkpoint's id or folder name, its revision, its licence, its training."""

    checkpoint: str
    revision: str | None
    license: str
    training: TrainingSpec | None = None


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One comparison made at export: what, against what, how far off (0: equal), how far is allowed."""

    subject: str
    reference: str
    measure: str
    value: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json."""

    schema_version: int
    name: str
    version: str
    license: str
    description: str
    sources: dict[str, SourceSpec]
    files: dict[str, FileSpec]
    graphs: dict[str, GraphSpec]
    grs: GrsSpec | None = None
    dus: DusSpec | None = None
    parity: tuple[ParityRow, ...] = field(default=())
