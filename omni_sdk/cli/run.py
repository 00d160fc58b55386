"""`omni-sdk run VIDEO QUERY`: reasoning, keyframes, boxes and mask tracks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from omni_sdk.cli import common

if TYPE_CHECKING:
    from omni_sdk.results import Result


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("video", help="path of a video or image, camera index, or rtsp:// address")
    parser.add_argument("query", help="the question, in words")
    parser.add_argument(
        "--out", type=Path, help="write result.json, masks/ and overlay.mp4 into this directory"
    )
    parser.add_argument(
        "--json", action="store_true", help="print result.json instead of a summary"
    )
    parser.add_argument("--frames", type=int, help="frames shown to the reasoner")
    parser.add_argument("--no-audio", action="store_true", help="ignore the sound")
    common.declare_pixels(parser)
    parser.add_argument("--keyframes", type=int, default=4, help="keyframes that are grounded")
    parser.add_argument(
        "--thinking-budget",
        type=int,
        metavar="TOKENS",
        help="thinking tokens after which an answer is asked for (default: three quarters of all)",
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail when the reasoner's text cannot be parsed (default: status 'unparsed', no tracks)",
    )
    common.declare_model(parser)
    common.declare_limits(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    import json

    from omni_sdk.config import (
        GenerationConfig,
        PipelineConfig,
        SamplingConfig,
        TrackingConfig,
    )
    from omni_sdk.errors import QueryError

    try:
        config = PipelineConfig(
            sampling=SamplingConfig(
                num_frames=arguments.frames,
                audio=not arguments.no_audio,
                pixels=arguments.pixels,
            ),
            generation=GenerationConfig(
                temperature=arguments.temperature,
                seed=arguments.seed,
                thinking_budget=arguments.thinking_budget,
            ),
            tracking=TrackingConfig(max_keyframes=arguments.keyframes),
            on_parse_error="raise" if arguments.strict else "empty",
        )
    except ValueError as e:
        raise QueryError(str(e)) from e
    pipeline = common.load_pipeline(arguments)
    if pipeline.bundle.name == "nano":
        common.say(common.NANO_WARNING)
    source = int(arguments.video) if arguments.video.isdigit() else arguments.video
    result = pipeline(source, arguments.query, config=config)
    if result.status == "unparsed":
        common.say(f"the reasoner's text holds no readable answer: {result.answer[:200]!r}")
    if arguments.out is not None:
        result.save(arguments.out)
        common.say(f"written to {arguments.out}")
    print(json.dumps(result.to_dict()) if arguments.json else summary(result))
    return 0


def summary(result: Result) -> str:
    """Return a result in a few lines."""
    video, times = result.video, result.timings_ms
    lines = [
        f"{video.path}: {video.width}x{video.height}, {video.num_frames} frames, "
        f"{video.duration_seconds:.2f} s, {'with' if video.has_audio else 'no'} sound"
        + (", truncated" if video.truncated else "")
        + (f", {video.missing_frames} frames missing" if video.missing_frames else "")
        + (f", {video.corrupt_frames} frames damaged" if video.corrupt_frames else ""),
        f"query:    {result.query}",
        f"thinking: {result.thinking.strip() or '-'}"
        + (" (cut short: the answer is a guess)" if result.thinking_cut else ""),
        f"answer:   {result.answer.strip() or '-'}",
        f"status:   {result.status}",
    ]
    for k in result.keyframes:
        boxes = ", ".join(
            f"#{o.object_id} [{', '.join(f'{v:.0f}' for v in o.box_xyxy)}]" for o in k.objects
        )
        lines.append(
            f"keyframe: {k.start_seconds:.2f}-{k.end_seconds:.2f} s, frame {k.frame_index} "
            f"({k.pts_seconds:.2f} s): {k.description}: {boxes or 'not found'}"
        )
    for t in result.tracks:
        lines.append(
            f"track #{t.object_id}: {t.label}, visible in {int((t.scores > 0).sum())} of {len(t)} frames"
        )
    parts = {n: getattr(times, n) for n in times.__slots__ if n not in ("total", "overlapped")}
    shown = ", ".join(f"{name} {ms:.0f}" for name, ms in parts.items() if ms >= 0.5)
    if times.overlapped >= 0.5:
        shown += f"; {times.overlapped:.0f} ms of decoding went on beside them"
    lines.append(f"time:     {times.total:.0f} ms ({shown})")
    return "\n".join(lines)
