"""Rewards of GRPO: format, R_K (which moments), R_A (which boxes) and R_G (which masks).

Pure functions over `omni_sdk`'s parser, keyframe choice, boxes and metrics, so that what training rewards
is what inference does. `paper` and `reference` combine them; `grpo.suite` gives them TRL's signature.

Source: Omni-R1 (arXiv 2505.20256) section 3 and the published code, github.com/aim-uofa/Omni-R1 at
commit 1de42f8.
"""
