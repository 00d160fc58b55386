"""`omni-sdk demo`: generated clips with sound, real mp4 files, exact ground truth."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from omni_sdk.cli import common
from omni_sdk.cli.options import declare_pipeline, read_pipeline
from omni_sdk.demo.world import FAMILIES

if TYPE_CHECKING:
    from omni_sdk.demo.play import Played

SAVED_CLIPS = len(FAMILIES)
"""Up to this many clips are written out with overlay and JSON; more are only scored."""


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--clips",
        type=int,
        default=len(FAMILIES),
        help=f"how many clips (default {len(FAMILIES)}: one of each kind of question)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, dest="first", help="first clip of the held-out series"
    )
    parser.add_argument(
        "--out",
        type=common.output_directory,
        default=Path("omni-demo"),
        help="directory for clips, overlays and JSON (default omni-demo)",
    )
    parser.add_argument(
        "--json", type=common.output_file, help="also write the scores of every clip here"
    )
    declare_pipeline(parser, exclude=("seed", "on_parse_error"))
    common.declare_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from omni_sdk.demo.evaluate import format_table, summarise
    from omni_sdk.demo.play import play
    from omni_sdk.demo.world import demo_clips
    from omni_sdk.errors import QueryError
    from omni_sdk.utils.files import write_json

    try:
        if arguments.clips < 1:
            raise ValueError(f"--clips must be at least 1, got {arguments.clips}")
        clips = list(demo_clips(arguments.clips, arguments.first))
    except ValueError as e:
        raise QueryError(str(e)) from e
    config = read_pipeline(arguments, on_parse_error="empty")  # what cannot be read scores 0
    pipeline = common.load_pipeline(arguments)
    save = len(clips) <= SAVED_CLIPS
    arguments.out.mkdir(parents=True, exist_ok=True)
    played: list[Played] = []
    with tempfile.TemporaryDirectory() as scratch:
        directory = arguments.out if save else Path(scratch)
        for seed, family in common.track(clips, len(clips), "clips"):
            one = play(pipeline, seed, family, directory, config=config)
            played.append(one)
            if save:
                one.result.save(arguments.out / one.path.stem)
                print(describe(one), end="\n\n", flush=True)
            else:
                one.path.unlink()
    print(format_table(summarise([p.score for p in played])))
    print(f"\ntracker alone, given the true box: {_tracker_line(played)}")
    print(f"time per clip, ms (median): {_times_line(played)}")
    if save:
        print(f"clips, overlays, masks and JSON are in {arguments.out}/")
    if arguments.json is not None:
        write_json(arguments.json, [_row(p) for p in played])
    return 0


def describe(played: Played) -> str:
    """Return what happened on one clip, in a few lines."""
    from omni_sdk.cli.run import summary
    from omni_sdk.demo.texts import describe as name
    from omni_sdk.demo.world import STEP_SECONDS

    score, truth = played.score, played.truth
    true = "; ".join(
        f"{name(truth.scene.objects[i].name)}, {start * STEP_SECONDS:.1f}-{end * STEP_SECONDS:.1f} s"
        for i, (start, end) in truth.scene.answers
    )
    parts = [f"J&F {score.j_and_f:.3f} (J {score.j:.3f}, F {score.f:.3f})"]
    if score.j_and_f_visible is not None:
        parts.append(f"where visible {score.j_and_f_visible:.3f}")
    if score.keyframe_box_iou is not None:
        parts.append(f"keyframe box IoU {score.keyframe_box_iou:.3f}")
    return f"{summary(played.result)}\ntruth:    {true or 'absent'}\nscore:    {', '.join(parts)}"


def _tracker_line(played: list[Played]) -> str:
    from omni_sdk.demo.evaluate import statistic

    values = [p.tracker_j for p in played if p.tracker_j is not None]
    if not values:
        return "-"
    s = statistic(values)
    return f"J {s.mean:.3f} +-{s.standard_error:.3f} over the visible frames of {s.count} clips"


def _times_line(played: list[Played]) -> str:
    import statistics

    first = played[0].result.timings_ms
    medians = {
        name: statistics.median(getattr(p.result.timings_ms, name) for p in played)
        for name in first.__slots__
    }
    return ", ".join(f"{name} {ms:.0f}" for name, ms in medians.items())


def _row(played: Played) -> dict[str, object]:
    from omni_sdk.utils.schema import to_dict

    scene = played.truth.scene
    return {
        "clip": played.path.stem,
        "query": scene.query,
        "answer": played.result.answer,
        "score": to_dict(played.score),
        "tracker_j": played.tracker_j,
        "timings_ms": to_dict(played.result.timings_ms),
    }
