"""What second looks do to reward and score: `python benchmarks/second_looks.py [--quick] [--json PATH]`.

The nano reasoner answers held-out clips of every kind several times at temperature 1. Each answer is paid by
the preset "paper" and scored by the experiments' evaluator, without second looks (the default of both) and
with two (the default of the pipeline). Rows: means by kind of question, and how often R_A + R_G tells the
better of two answers about one clip, by the J&F that a user gets. Nothing is timed.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import replace
from itertools import combinations

import numpy as np
from harness import OURS, Benchmark, make_parser
from omni_training.data.video_samples import open_processor
from omni_training.data.world import WorldClip, world_clock, world_scene
from omni_training.data.world_samples import observe_scene
from omni_training.experiment.judge import ClipEvaluator, open_judge
from omni_training.experiment.settings import CLIP_FRAME_SIDE, JudgeSettings
from omni_training.rewards.jobs import RewardJob
from omni_training.rewards.paper import PaperReward
from omni_training.workers.scorer import ClipScorer

from omni_sdk import GenerationConfig, Pipeline
from omni_sdk.demo.world import FAMILIES, held_out_seed
from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.processor import Processor
from omni_sdk.stages import Reasoner

LOOKS = (0, 2)
ROLLOUTS = 4


def answers(reasoner: Reasoner, processor: Processor, clip: str) -> list[str]:
    """Return sampled completions about a clip, unreadable ones as well."""
    scene = world_scene(clip)
    observation = observe_scene(scene, processor)
    texts = []
    for seed in range(ROLLOUTS):
        config = GenerationConfig(temperature=1.0, top_p=0.95, seed=seed)
        try:
            texts.append(reasoner.reason(observation, scene.query, config).text)
        except ModelOutputError as e:
            texts.append(e.text)
    return texts


def main() -> int:
    """Measure."""
    parser = make_parser(__doc__, quick="two clips of each kind")
    parser.add_argument("--clips", type=int, default=10, help="of each kind")
    arguments = parser.parse_args()
    pipe = Pipeline.from_pretrained("nano", threads=1)
    assert pipe.reasoner is not None
    processor = open_processor("nano")
    judge = open_judge(JudgeSettings())
    assert judge.tracker is not None
    side = judge.tracker.image_size
    presets = {n: PaperReward(second_looks=n, target_keyframes=1) for n in LOOKS}
    scorer = ClipScorer(
        lambda name: WorldClip(name, size=CLIP_FRAME_SIDE, tracker_size=side),
        judge.grounder,
        judge.tracker,
    )
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    pairs: dict[str, list[bool]] = defaultdict(list)
    for number in range(2 if arguments.quick else arguments.clips):
        for family in FAMILIES:
            clip = f"{family}:{held_out_seed(family, 500 + number)}"
            courts = {
                n: ClipEvaluator(replace(judge, config=replace(judge.config, second_looks=n)), clip)
                for n in LOOKS
            }
            truth = WorldClip(clip, size=CLIP_FRAME_SIDE).truth
            group = []
            for text in answers(pipe.reasoner, processor, clip):
                row = {}
                for n, preset in presets.items():
                    paid = preset.score_text(text, truth, world_clock())
                    found = (
                        scorer.score(RewardJob(clip, clip, paid.points)) if paid.points else None
                    )
                    rewards = preset.combine(paid, found, truth)
                    row |= {f"r_a@{n}": rewards.r_a, f"r_g@{n}": rewards.r_g}
                    row[f"j_and_f@{n}"] = courts[n].score(text).j_and_f
                group.append(row)
            rows[family] += group
            for a, b in combinations(group, 2):
                gap = a["j_and_f@2"] - b["j_and_f@2"]
                if abs(gap) > 0.05:
                    for n in LOOKS:
                        paid_gap = sum(a[f"{r}@{n}"] - b[f"{r}@{n}"] for r in ("r_a", "r_g"))
                        pairs[f"agrees@{n}"].append(paid_gap * gap > 0)
        print(f"{number + 1} clips of each kind", flush=True)
    bench = Benchmark("second_looks", rounds=1, packages=["onnxruntime"])
    rows["all"] = [row for group in list(rows.values()) for row in group]
    for family, group in rows.items():
        means = {name: float(np.mean([row[name] for row in group])) for name in group[0]}
        if family == "all":
            means |= {name: float(np.mean(right)) for name, right in pairs.items()}
            means["pairs"] = len(pairs["agrees@0"])
        bench.rows.append({"case": family, "implementation": OURS, "answers": len(group)} | means)
        print(f"{family:<12} " + ", ".join(f"{k} {v:.3f}" for k, v in means.items()))
    return bench.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
