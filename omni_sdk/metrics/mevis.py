"""MeViS: the mean over expressions of the mean over frames of J and of F.

Source: `tools/eval_mevis.py` of henghuiding/MeViS. Ref-YouTube-VOS and Ref-DAVIS17 are summed up the
same way (`tools/eval_davis17.py` of cilinyan/VISA). A video or frame without a prediction is 0, and
counts in the mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from omni_sdk.errors import DatasetError
from omni_sdk.metrics.expressions import ExpressionScore, missing_expression, score_expression

__all__ = [
    "ExpressionScore",
    "MevisSummary",
    "missing_expression",
    "score_expression",
    "summarise",
]


@dataclass(frozen=True, slots=True)
class MevisSummary:
    """The table's row, each in [0, 1].

    Attributes:
        j: mean J over expressions.
        f: mean F over expressions.
        jf: (j + f) / 2.
        num_expressions: in the mean.
        num_incomplete: of these, how many lacked a prediction and so are 0.
    """

    j: float
    f: float
    jf: float
    num_expressions: int
    num_incomplete: int


def summarise(scores: Iterable[ExpressionScore]) -> MevisSummary:
    """Average expressions, each with the same weight.

    Raises:
        DatasetError: there is none.
    """
    rows = list(scores)
    if not rows:
        raise DatasetError("expected at least one scored expression, got none")
    j = sum(row.j for row in rows) / len(rows)
    f = sum(row.f for row in rows) / len(rows)
    return MevisSummary(j, f, (j + f) / 2, len(rows), sum(row.num_missing > 0 for row in rows))
