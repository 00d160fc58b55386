"""Requests: layout, limits and lengths, prompts."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from omni_sdk.errors import BundleError, LimitError, MediaError, QueryError
from omni_sdk.grs import prompts
from omni_sdk.grs.mel import log_mel
from omni_sdk.grs.patches import patchify
from omni_sdk.grs.processor import MAX_QUERY_CHARS, Processor, check_query, load_tokenizer
from omni_sdk.media.clock import Clock
from omni_sdk.media.pixels.patch_layout import Patches
from omni_sdk.stages import Observation


def observe(
    size: tuple[int, int],
    count: int,
    *,
    seconds: float = 10.0,
    virtual_fps: float | None = 2.0,
    audio: np.ndarray | None = None,
) -> Observation:
    rng = np.random.default_rng(count)
    times = np.arange(count) * seconds / count
    clock = Clock(np.arange(count, dtype=np.int64) * 3, times, seconds, virtual_fps)
    return Observation(rng.integers(0, 256, (count, *size, 3), np.uint8), clock, audio)


def tone(seconds: float) -> np.ndarray:
    return np.sin(np.arange(int(seconds * 16000)) / 20).astype(np.float32)


@pytest.fixture
def processor(spec, tokenizer) -> Processor:
    return Processor(spec, tokenizer)


def text_of(processor: Processor, ids: np.ndarray) -> str:
    return processor.decode(ids)


def test_a_silent_video(processor, tokens):
    observation = observe((56, 84), 5)
    request = processor.reason_request(observation, " the red car ")
    (vision,) = request.vision
    assert vision.kind == "video"
    assert vision.grid_thw == (3, 4, 6)
    assert vision.seconds_per_grid == 1.0  # two frames of the virtual clock
    assert vision.pixel_values.shape == (72, 1176)
    assert request.mel == ()
    assert not request.audio_in_video
    assert list(request.input_ids).count(tokens.video) == 18
    assert request.position_ids.shape == (3, len(request.input_ids))
    assert np.unique(request.position_ids[0][request.input_ids == tokens.video]).size == 3
    text = text_of(processor, request.input_ids)
    assert "This video lasts 2.5 seconds. The reference is: the red car\n" in text
    assert text.startswith("system\nYou are Qwen")
    assert text.endswith("assistant\n")


def test_sound_in_the_video_runs_on_real_time(processor, tokens):
    observation = observe((56, 56), 8, seconds=16.0, audio=tone(16.0))
    request = processor.reason_request(observation, "the car")
    assert request.audio_in_video
    assert request.vision[0].seconds_per_grid == pytest.approx(4.0)  # two frames, 2 s apart
    assert request.mel[0].shape == (128, 1600)
    times = request.position_ids[0]
    video, audio = (times[request.input_ids == t] for t in (tokens.video, tokens.audio))
    start = audio.min()
    assert np.array_equal(np.unique(video) - start, [0, 100, 200, 300])  # 25 steps per second
    assert len(audio) == 400
    assert audio.max() - start == 399


def test_real_times_on_the_clock(processor):
    request = processor.ask_request(observe((28, 28), 4, virtual_fps=None), "Who sings?")
    assert request.vision[0].seconds_per_grid == pytest.approx(5.0)
    assert text_of(processor, request.input_ids).endswith("user\nWho sings?\nassistant\n")


def test_sound_beside_the_video(spec, tokenizer, tokens):
    spec = replace(spec, sampling=replace(spec.sampling, audio_in_video=False))
    request = Processor(spec, tokenizer).ask_request(
        observe((28, 28), 2, audio=tone(1.0)), "Who sings?"
    )
    ids = request.input_ids.tolist()
    assert not request.audio_in_video
    assert ids.index(tokens.vision_end) + 1 == ids.index(tokens.audio_start)
    assert ids.count(tokens.audio) == 25


@pytest.mark.parametrize("samples", [None, np.zeros(0, np.float32)])
def test_missing_sound(spec, tokenizer, tokens, samples):
    observation = observe((28, 28), 4, seconds=2.0, audio=samples)
    silent = replace(spec, sampling=replace(spec.sampling, missing_audio="silence"))
    assert Processor(spec, tokenizer).ask_request(observation, "?").mel == ()
    request = Processor(silent, tokenizer).ask_request(observation, "?")
    assert request.audio_in_video
    assert request.mel[0].shape == (128, 200)
    assert np.all(request.mel[0] == -1.5)
    assert list(request.input_ids).count(tokens.audio) == 50


def test_a_sound_too_short_for_a_token_is_left_out(processor, tokens):
    request = processor.ask_request(observe((28, 28), 4, audio=tone(0.02)), "?")
    assert request.mel == ()
    assert tokens.audio_start not in request.input_ids


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_patches_are_taken_as_they_are(spec, tokenizer, dtype):
    processor = Processor(spec, tokenizer, pixel_dtype=dtype)
    images = observe((56, 84), 5)
    values, grid = patchify(images.frames, spec.vision, dtype)
    assert values.dtype == dtype
    patched = replace(images, frames=images.frames[:0], patches=Patches(values, grid))
    expected, found = (processor.ask_request(o, "Who?") for o in (images, patched))
    assert found.vision[0].pixel_values is values
    assert np.array_equal(expected.vision[0].pixel_values, values)
    assert np.array_equal(expected.input_ids, found.input_ids)
    for wrong in (Patches(values[:-1], grid), Patches(values, (2, *grid[1:]))):
        with pytest.raises(ValueError, match="do not fit a clock of 5"):
            processor.ask_request(replace(patched, patches=wrong), "Who?")


def test_an_image_is_a_video_of_one_frame(processor):
    request = processor.ask_request(observe((28, 28), 1, seconds=0.0, virtual_fps=None), "?")
    assert request.vision[0].grid_thw == (1, 2, 2)
    assert request.vision[0].seconds_per_grid == 0.0


def test_grounding(processor, tokens):
    image = np.random.default_rng(0).integers(0, 256, (480, 854, 3), np.uint8)
    request, size = processor.ground_request(image, "The RED car")
    assert size == (476, 840)
    (vision,) = request.vision
    assert (vision.kind, vision.grid_thw) == ("image", (1, 34, 60))
    assert list(request.input_ids).count(tokens.image) == 510
    assert (
        "Given the expression: 'the red car', ground all the referred objects with json bboxs\n"
        in text_of(processor, request.input_ids)
    )
    # the pixels are torch's antialiased bicubic ones
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size, mode="bicubic", antialias=True)
    first = resized[0, :, :14, :14].float()
    mean, std = (torch.tensor(v)[:, None, None] * 255 for v in (vision_mean(), vision_std()))
    expected = ((first - mean) / std).numpy()
    assert np.array_equal(vision.pixel_values[0].reshape(3, 2, 14, 14)[:, 0], expected)


def test_an_image_with_sound_is_the_image_and_the_sound(processor, tokens):
    """Ref-AVS's form: the sound comes behind the image, whose ids and pixels do not change by it."""
    image = np.random.default_rng(0).integers(0, 256, (56, 84, 3), np.uint8)
    sound = np.random.default_rng(1).standard_normal(16000).astype(np.float32)
    alone, size = processor.image_request(image, "What rings?", 1)
    request, same_size = processor.image_request(image, "What rings?", 1, sound=sound)
    assert size == same_size
    assert np.array_equal(request.vision[0].pixel_values, alone.vision[0].pixel_values)
    ids, own = list(request.input_ids), list(alone.input_ids)
    first, last = ids.index(tokens.audio_start), ids.index(tokens.audio_end)
    assert ids[:first] + ids[last + 1 :] == own
    assert ids[first + 1 : last] == [tokens.audio] * 25
    assert np.array_equal(request.mel[0], log_mel(sound, processor.spec.audio))
    assert request.position_ids.shape == (3, len(ids))
    click, _ = processor.image_request(image, "What rings?", 1, sound=sound[:100])
    assert list(click.input_ids) == own, "less than one token of sound is left out"
    assert click.mel == ()


def vision_mean() -> tuple[float, ...]:
    return (0.48145466, 0.4578275, 0.40821073)


def vision_std() -> tuple[float, ...]:
    return (0.26862954, 0.26130258, 0.27577711)


def test_sizes(processor):
    assert processor.frame_size(480, 854) == (224, 420)
    assert processor.image_size(1080, 1920) == (616, 1120)
    with pytest.raises(LimitError, match="10x3000"):
        processor.frame_size(10, 3000)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("x" * (MAX_QUERY_CHARS + 1), "4001 characters"),
        ("a\x00b", r"U\+0000 at position 1"),
        ("a\x1b[31m", r"U\+001B"),
        ("\x85x", r"U\+0085"),
        ("a\ud800", r"U\+D800"),
        (b"bytes", "bytes"),
        (None, "NoneType"),
    ],
)
def test_queries_that_are_refused(processor, query, message):
    observation = observe((28, 28), 2)
    image = np.zeros((56, 56, 3), np.uint8)
    for call in (
        lambda: check_query(query),
        lambda: processor.reason_request(observation, query),
        lambda: processor.ask_request(observation, query),
        lambda: processor.ground_request(image, query),
    ):
        with pytest.raises(QueryError, match=message):
            call()


def test_queries_that_are_allowed():
    assert check_query("  die größte Katze\n👩‍👩‍👧 ?\t") == "die größte Katze\n👩‍👩‍👧 ?"
    assert check_query("x" * MAX_QUERY_CHARS)


def test_prompt_and_reply_must_fit(spec, tokenizer):
    observation = observe((56, 56), 4)
    short = replace(spec, decoder=replace(spec.decoder, max_positions=600))
    processor = Processor(short, tokenizer)
    needed = len(Processor(spec, tokenizer).ask_request(observation, "?").input_ids)
    processor.ask_request(observation, "?", max_new_tokens=600 - needed)
    with pytest.raises(QueryError, match=f"{needed} tokens .* {601 - needed}, .* 600"):
        processor.ask_request(observation, "?", max_new_tokens=601 - needed)
    with pytest.raises(QueryError, match="512"):
        processor.reason_request(observation, "x " * 500)
    with pytest.raises(QueryError, match="128"):
        processor.ground_request(np.zeros((600, 600, 3), np.uint8), "a car")


def test_what_does_not_fit_together(processor):
    observation = observe((28, 28), 2)
    with pytest.raises(ValueError, match="1 frames do not fit a clock of 2"):
        processor.ask_request(replace(observation, frames=observation.frames[:1]), "?")
    with pytest.raises(ValueError, match="multiples of 28"):
        processor.ask_request(observe((30, 28), 2), "?")
    with pytest.raises(MediaError, match="NaN"):
        processor.ask_request(replace(observation, audio=np.full(9999, np.nan, np.float32)), "?")


def test_unknown_templates_and_broken_tokenizers(spec, tokenizer, tmp_path):
    with pytest.raises(BundleError, match=r"unknown prompt template 'x'; known: \['nano'"):
        Processor(replace(spec, prompts=replace(spec.prompts, ask="x")), tokenizer)
    for content in ("", "{}", "\x00"):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(BundleError, match=r"tokenizer\.json: not a tokenizer"):
            load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(BundleError):
        Processor.from_directory(spec, tmp_path / "absent")


def test_a_directory(spec, tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    processor = Processor.from_directory(spec, tmp_path)
    assert processor.decode(processor.ask_request(observe((28, 28), 2), "Why?").input_ids).endswith(
        "Why?\nassistant\n"
    )
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("name", sorted(prompts.TEMPLATES))
def test_every_template_takes_any_query(name):
    query = "a {query} {seconds} {0} '}' \\ car"
    assert query in prompts.render(name, query, seconds=2.5)


def test_the_forced_prompt():
    text = prompts.render("omni-r1-force", "the car", seconds=12)
    assert "lasts 12 seconds" in text
    assert '{"start_time": "00:01.50", "end_time": "00:01.50", "description": "..."}' in text
    assert text.count('"00:10.50"') == 2


def test_the_nano_prompt(nano_directory, nano_spec):
    """The ids that its training code makes (user turn without system: video, sound, query)."""
    processor = Processor.from_directory(nano_spec, nano_directory)
    tokenizer = load_tokenizer(nano_directory / "tokenizer.json")
    observation = observe((48, 48), 16, seconds=8.0, audio=tone(8.0))
    ids = processor.reason_request(observation, "the red shape").input_ids.tolist()
    query = tokenizer.encode("the red shape", add_special_tokens=False).ids
    media = [3, *[7] * 72, 4, 5, *[8] * 16, 6]
    user, newline, assistant = (tokenizer.token_to_id(t) for t in ("user\n", "\n", "assistant\n"))
    assert ids == [1, user, *media, *query, 2, newline, 1, assistant]
    request, size = processor.ground_request(np.zeros((384, 384, 3), np.uint8), "a red circle")
    assert size == (96, 96)
    query = tokenizer.encode(
        "Given the expression: 'a red circle', ground all the referred objects with json bboxs",
        add_special_tokens=False,
    ).ids
    assert request.input_ids.tolist() == [
        1,
        user,
        3,
        *[9] * 36,
        4,
        *query,
        2,
        newline,
        1,
        assistant,
    ]


def test_log_mel_is_what_the_request_holds(processor, audio_spec):
    samples = tone(3.0)
    request = processor.ask_request(observe((28, 28), 4, audio=samples), "?")
    assert np.array_equal(request.mel[0], log_mel(samples, audio_spec))
