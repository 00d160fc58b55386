"""`omni-sdk run VIDEO QUERY`: reasoning, keyframes, boxes and mask tracks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from omni_sdk.cli import common
from omni_sdk.cli.options import declare_pipeline, read_pipeline

if TYPE_CHECKING:
    from omni_sdk.results import Result


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("video", help="path of a video or image, camera index, or rtsp:// address")
    parser.add_argument("query", help="the question, in words")
    parser.add_argument(
        "--out",
        type=common.output_directory,
        metavar="DIR",
        help="write result.json, masks/ and overlay.mp4 into this directory",
    )
    parser.add_argument(
        "--json", action="store_true", help="print result.json instead of a summary"
    )
    declare_pipeline(parser, defaults={"on_parse_error": "empty"})
    parser.add_argument(
        "--strict",
        dest="on_parse_error",
        action="store_const",
        const="raise",
        default=argparse.SUPPRESS,
        help="short for --on-parse-error raise",
    )
    common.declare_model(parser)
    common.declare_limits(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    import json

    from omni_sdk.cli.progress import RunProgress
    from omni_sdk.errors import OptionError
    from omni_sdk.media.source import is_live

    config, models = read_pipeline(arguments), common.read_models(arguments)
    if models.backend == "torch" and models.tracker is None:
        raise OptionError(
            "--backend torch runs two checkpoints: name the tracker's with --tracker, or use `ask`, which "
            "needs none"
        )
    pipeline = common.load_pipeline(arguments)
    if pipeline.bundle.name == "nano":
        common.say(common.NANO_WARNING)
    source = int(arguments.video) if arguments.video.isdigit() else arguments.video
    with RunProgress() as progress:
        result = pipeline(source, arguments.query, config=config, on_event=progress)
    if result.status == "unparsed":
        common.say(f"the reasoner's text holds no readable answer: {result.answer[:200]!r}")
    if arguments.out is not None:
        live = is_live(result.source)
        result.save(arguments.out, overlay=not live)
        common.say(f"written to {arguments.out}" + (", no overlay: a live source" if live else ""))
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
