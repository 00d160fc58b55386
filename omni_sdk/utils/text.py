"""Text for people and models: aligned columns, times."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text columns."""
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    title = "  ".join(h.ljust(w) for h, w in zip(head, widths, strict=True))
    return "\n".join(line.rstrip() for line in [title, "  ".join("-" * w for w in widths), *lines])


def format_time(seconds: float) -> str:
    """Return a time as "mm:ss.ff", rounded to hundredths of a second: 61.25 -> "01:01.25"."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"
