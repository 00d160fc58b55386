"""What `omni-sdk eval` says: the scores, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from omni_sdk.cli import common
from omni_sdk.utils.text import table

if TYPE_CHECKING:
    from omni_sdk.evaluation.report import Results
    from omni_sdk.evaluation.scoring import ScoredExpression

SECONDS_BETWEEN_LINES = 30.0


def print_results(results: Results) -> None:
    """Print the scores, what failed, and what belongs to no expression."""
    from omni_sdk.evaluation.report import failure_lines, summary_table

    print(f"{results.dataset} {results.split}, scores in percent (S: 0 is best)")
    print(table(*summary_table(results)))
    if results.failures:
        print(f"\n{len(results.failures)} of {len(results.rows)} failed and count as 0:")
        print("\n".join(f"  {line}" for line in failure_lines(results)))
    if results.unknown:
        print(f"\n{len(results.unknown)} folders of predictions belong to no expression, such as ")
        print("\n".join(f"  {name}" for name in results.unknown[:5]))


def with_progress(rows: Iterable[ScoredExpression], total: int) -> Iterator[ScoredExpression]:
    """Yield rows and say on stderr, each tenth or half minute, how far it is and how it goes."""
    from omni_sdk.evaluation.scoring import quality

    started = said = time.monotonic()
    failed, scores = 0, []
    for done, row in enumerate(rows, 1):
        yield row
        failed += bool(row.error)
        scores += [] if row.score is None else [quality(row)]
        now = time.monotonic()
        if now - said < SECONDS_BETWEEN_LINES and done * 10 // total == (done - 1) * 10 // total:
            continue
        said, elapsed = now, now - started
        mean = f"J&F {sum(scores) / len(scores):.3f}, " if scores else ""
        common.say(
            f"{done}/{total} expressions, {mean}{failed} failed, {elapsed:.0f} s, about "
            f"{elapsed / done * (total - done):.0f} s left"
        )
