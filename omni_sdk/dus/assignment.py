"""Exact linear assignment, in numpy: which box belongs to which object.

The tracker and the rewards share it. Method: shortest augmenting paths with dual potentials (R. Jonker
and A. Volgenant, Computing 38, 1987), O(n^2 m) for n rows and m columns, n <= m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def linear_assignment(cost: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair rows with columns so that the sum of the pairs' costs is least.

    Args:
        cost: (N, M), finite.

    Returns:
        Rows (min(N, M),) int64, ascending, and their columns, as `scipy.optimize.linear_sum_assignment`
        (another assignment of the same total where several are best).

    Raises:
        ValueError: not a matrix, or a cost is not finite.
    """
    matrix = np.asarray(cost, np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"cost must be a finite (N, M) matrix, got shape {matrix.shape}")
    if matrix.shape[0] > matrix.shape[1]:
        columns, rows = linear_assignment(matrix.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    columns = _solve(matrix)
    return np.arange(len(columns)), columns


def match_by_iou(iou: ArrayLike, minimum: float) -> NDArray[np.int64]:
    """Match rows with columns one to one, for the greatest sum of IoU over pairs of at least `minimum`.

    Args:
        iou: (N, M) in [0, 1].
        minimum: pairs below it are never matched.

    Returns:
        (N,) int64: for each row its column, or -1.
    """
    gain = np.asarray(iou, np.float64)
    rows, columns = linear_assignment(np.where(gain >= minimum, -gain, 0.0))
    matched = np.full(gain.shape[0], -1, np.int64)
    good = gain[rows, columns] >= minimum
    matched[rows[good]] = columns[good]
    return matched


def _solve(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Column of each row; N <= M. Column M is a sentinel from which each search starts."""
    rows, columns = cost.shape
    row_price = np.zeros(rows)
    column_price = np.zeros(columns + 1)
    owner = np.full(columns + 1, -1, np.int64)  # the row that holds each column
    for row in range(rows):
        owner[columns] = row
        current = columns
        reach = np.full(columns, np.inf)  # least reduced cost found to each column
        parent = np.full(columns, columns, np.int64)  # the column before it on that path
        visited = np.zeros(columns + 1, bool)
        while owner[current] != -1:
            visited[current] = True
            i = owner[current]
            reduced = cost[i] - row_price[i] - column_price[:columns]
            open_columns = ~visited[:columns]
            better = open_columns & (reduced < reach)
            reach[better] = reduced[better]
            parent[better] = current
            following = int(np.argmin(np.where(open_columns, reach, np.inf)))
            step = reach[following]
            row_price[owner[visited]] += step
            column_price[visited] -= step
            reach[open_columns] -= step
            current = following
        while current != columns:
            before = parent[current]
            owner[current] = owner[before]
            current = before
    result = np.empty(rows, np.int64)
    held = np.flatnonzero(owner[:columns] >= 0)
    result[owner[held]] = held
    return result
