"""The experiment on the procedural world: what each part of the reward is worth, against controls.

`omni-train experiment` trains a thinker from one start with several rewards and seeds, and a supervised
control of equal compute; answers held-out clips with each; lets two detail systems judge the answers; and
writes a table with intervals and a page. Every piece of work is a job of its own: killed at any time, the
same command goes on.
"""
