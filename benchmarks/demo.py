"""The README's table of demo scores: `python benchmarks/demo.py SCORES --json benchmarks/results/demo.json`.

SCORES is what `omni-sdk demo --clips 550 --json SCORES` writes: the scores of every clip. Nothing is timed
here: a row is a kind of question, its values means over the clips and standard errors (NAME_error).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness import OURS, Benchmark, make_parser

from omni_sdk.demo.evaluate import ClipScore, summarise


def main() -> int:
    """Summarise the scores."""
    parser = make_parser(__doc__, quick=None)
    parser.add_argument("scores", type=Path, help="what omni-sdk demo --json wrote")
    arguments = parser.parse_args()
    clips = json.loads(arguments.scores.read_text(encoding="utf-8"))
    bench = Benchmark("demo", rounds=1, packages=["onnxruntime", "av"])
    for family, measures in summarise(ClipScore(**clip["score"]) for clip in clips).items():
        row = {"case": family, "implementation": OURS, "clips": measures["j_and_f"].count}
        for name, statistic in measures.items():
            row |= {name: statistic.mean, f"{name}_error": statistic.standard_error}
        bench.rows.append(row)
        print(f"{family:<12} {row['clips']:>4} clips, J&F {row['j_and_f']:.3f}")
    return bench.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
