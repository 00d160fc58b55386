"""Write what the product answers, through its command lines alone, so that a refactoring can be held to it.

    python scripts/golden_results.py write DIR [--part demo ..] [--nano-checkpoints DIR]
    python scripts/golden_results.py compare OLD NEW

`write` runs the commands of the environment that it is started in. Times and paths are left out; everything
else (answers, scores, RLE bytes, PNGs, graphs, rewards, weights) is compared to the last bit. Nothing of
this repository is imported, so that one copy of this file serves commits of any layout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTS = ("demo", "export", "grpo", "eval", "nano")
CLIPS = 11
TIMES = re.compile(r"_ms$|_runtime$|per_second$|^step_time$|^seconds$|_seconds_per_|^timings")


def without_times(value: Any) -> Any:
    """Return JSON values without those that a clock made."""
    if isinstance(value, dict):
        return {
            k: without_times(v) for k, v in value.items() if not TIMES.search(k) and k != "path"
        }
    if isinstance(value, list):
        return [without_times(v) for v in value]
    return value


def run(*command: str | Path) -> str:
    """Run a command of this environment; return what it printed."""
    words = [str(Path(sys.executable).parent / str(command[0])), *map(str, command[1:])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def fingerprints(folder: Path) -> dict[str, Any]:
    """Return a hash of every file; of JSON files, their values without times."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_text(encoding="utf-8")))
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            found[name] = without_times(rows)
        elif path.suffix not in (".html", ".parquet"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def demo(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Answer 22 demo clips: answers, masks, scores, result.json."""
    found: dict[str, Any] = {}
    for first in (0, CLIPS):
        out = work / f"clips-{first}"
        scores = work / f"scores-{first}.json"
        run(
            "omni-sdk",
            "demo",
            "--clips",
            str(CLIPS),
            "--seed",
            str(first),
            "--out",
            out,
            "--json",
            scores,
        )
        found[f"scores-{first}"] = without_times(json.loads(scores.read_text()))
        found |= {f"{first}/{k}": v for k, v in fingerprints(out).items()}
    return found


def export(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Export the small checkpoints; hash every file of the bundle."""
    nano, out = arguments.nano_checkpoints, work / "bundle"
    run(
        "omni-export",
        "onnx",
        "--grs",
        nano / "thinker",
        "--dus",
        nano / "sam2",
        "--out",
        out,
        "--name",
        "tiny",
        "--grs-license",
        "Apache-2.0",
        "--dus-license",
        "Apache-2.0",
        "--compact",
    )
    run("omni-export", "variants", out, "--out", work / "int8", "--variant", "int8")
    return fingerprints(work)


def grpo(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train two steps with boxes and masks paid, by both presets; weights and log lines."""
    found: dict[str, Any] = {}
    for preset in ("paper", "reference"):
        out, file = work / preset, work / f"{preset}.yaml"
        model = str(arguments.nano_checkpoints / "thinker_early")
        config = {
            "model": {"path": model, "dtype": "float32"},
            "grpo": {
                "num_generations": 4,
                "gradient_accumulation_steps": 2,
                "max_steps": 2,
                "learning_rate": 1e-4,
                "save_steps": 2,
                "max_completion_tokens": 96,
            },
            "data": {
                "factory": "omni_training.data.world_samples:world_samples",
                "options": {"model": model, "count": 4},
                "num_samples": 4,
            },
            "rewards": {"preset": preset},
            "workers": {
                "factory": "omni_training.data.world:world_scorer",
                "options": {"bundle": "nano"},
            },
            "resources": {"devices": 1, "memory_gb": 20},
            "output_dir": str(out),
        }
        file.write_text(json.dumps(config), encoding="utf-8")  # YAML reads JSON
        run("omni-train", "grpo", "--config", file)
        states = [json.loads(p.read_text()) for p in sorted(out.rglob("trainer_state.json"))]
        found[f"{preset}/log"] = [without_times(s["log_history"]) for s in states]
        found |= {
            f"{preset}/{p.parent.name}/{p.name}": hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(out.rglob("*.safetensors"))
        }
    return found


def evaluate(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Run a benchmark of three small videos in MeViS's layout, made of the demo's own clips."""
    import av

    clips, root = work / "clips", work / "mevis" / "valid_u"
    run("omni-sdk", "demo", "--clips", "3", "--out", clips)
    videos: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    for number, path in enumerate(sorted(clips.glob("*.mp4"))):
        result = json.loads((clips / path.stem / "result.json").read_text())
        folder = root / "JPEGImages" / path.stem
        folder.mkdir(parents=True)
        names = []
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                names.append(f"{index:05d}")
                frame.to_image().save(folder / f"{index:05d}.jpg", quality=95)
        tracks = result["tracks"]
        rows: list[Any] = [None] * len(names)
        for entry in tracks[0]["frames"] if tracks else []:
            rows[entry["frame_index"]] = entry["rle"]
        masks[str(number)] = rows
        videos[path.stem] = {
            "expressions": {"0": {"exp": result["query"], "obj_id": [0], "anno_id": [number]}},
            "frames": names,
        }
    (root / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
    (root / "mask_dict.json").write_text(json.dumps(masks))
    out = work / "out"
    run("omni-sdk", "eval", "run", "mevis", work / "mevis", "--out", out, "--fps", "8")
    return fingerprints(out)


def nano(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Train the nano models for a thousandth of their time; hash weights and bundle."""
    out = work / "nano"
    run("omni-train", "nano", "--out", out, "--seed", "1", "--minutes-scale", "0.001")
    kept = {
        k: v for k, v in fingerprints(out).items() if k.endswith((".safetensors", ".onnx", ".json"))
    }
    return {k: v for k, v in kept.items() if "state" not in k}


def write(arguments: argparse.Namespace) -> int:
    """Run the parts one after the other."""
    run_part = {"demo": demo, "export": export, "grpo": grpo, "eval": evaluate, "nano": nano}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for part in arguments.part or PARTS:
        work = arguments.folder / part
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        found = run_part[part](work, arguments)
        (arguments.folder / f"{part}.json").write_text(json.dumps(found, indent=1, sort_keys=True))
        print(f"{part}: {len(found)} results", flush=True)
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Print every difference; 1 where there is one."""
    differences = 0
    for path in sorted(arguments.old.glob("*.json")):
        other = arguments.new / path.name
        if not other.is_file():
            print(f"{path.stem}: not in {arguments.new}")
            continue
        old, new = json.loads(path.read_text()), json.loads(other.read_text())
        wrong = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
        for key in wrong:
            for place, before, after in leaves(old.get(key), new.get(key)):
                print(f"{path.stem}: {key}{place}: {_short(before)} -> {_short(after)}")
        print(f"{path.stem}: {len(old) - len(wrong)} of {len(old)} equal")
        differences += len(wrong)
    return int(differences > 0)


def leaves(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield where two JSON values differ, as deep as both have the same shape."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key in old:
            yield from leaves(old[key], new[key], f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for n, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from leaves(a, b, f"{place}[{n}]")
    elif old != new:
        yield place, old, new


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(required=True)
    writing = actions.add_parser("write", help="run the commands and keep their results")
    writing.add_argument("folder", type=Path)
    writing.add_argument("--part", action="append", choices=PARTS)
    writing.add_argument(
        "--nano-checkpoints",
        type=Path,
        default=Path("../shared/nano"),
        help="folder with the checkpoints thinker, thinker_early and sam2",
    )
    writing.set_defaults(perform=write)
    comparing = actions.add_parser("compare", help="tell what differs")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.set_defaults(perform=compare)
    arguments = parser.parse_args()
    return int(arguments.perform(arguments))


if __name__ == "__main__":
    sys.exit(main())
