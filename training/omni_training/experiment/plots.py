"""Two small plots as SVG text: means with intervals, and curves. No library, no pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 150, 20, 34, 40
COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee")


def interval_plot(title: str, rows: Mapping[str, tuple[float, float, float]], unit: str) -> str:
    """Return a plot of means with their intervals, one line for each row, and a rule at 0.

    Args:
        title: above the plot.
        rows: label -> (mean, low, high).
        unit: of the axis.
    """
    values = [v for row in rows.values() for v in row] + [0.0]
    scale = _Scale(min(values), max(values), LEFT, WIDTH - RIGHT)
    height = TOP + 28 * len(rows) + BOTTOM
    body = [_text(WIDTH / 2, 20, title, "middle", 14)]
    for tick in scale.ticks():
        x = scale(tick)
        body.append(_line(x, TOP, x, height - BOTTOM, "#ddd"))
        body.append(_text(x, height - BOTTOM + 16, f"{tick:g}", "middle"))
    body.append(_line(scale(0.0), TOP, scale(0.0), height - BOTTOM, "#888"))
    for i, (label, (mean, low, high)) in enumerate(rows.items()):
        y, colour = TOP + 28 * i + 14, COLOURS[i % len(COLOURS)]
        body.append(_text(LEFT - 8, y + 4, label, "end"))
        body.append(_line(scale(low), y, scale(high), y, colour, 2))
        body.append(f'<circle cx="{scale(mean):.1f}" cy="{y}" r="4" fill="{colour}"/>')
    body.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 6, unit, "middle"))
    return _svg(body, height)


def curve_plot(
    title: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], unit: str
) -> str:
    """Return a plot of lines over a common axis.

    Args:
        title: above the plot.
        curves: label -> (x values, y values).
        unit: of the x axis.
    """
    xs = [x for line in curves.values() for x in line[0]]
    ys = [y for line in curves.values() for y in line[1]]
    left = 60
    across = _Scale(min(xs), max(xs), left, WIDTH - LEFT)
    up = _Scale(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    body = [_text(WIDTH / 2, 20, title, "middle", 14)]
    for tick in up.ticks():
        body.append(_line(left, up(tick), WIDTH - LEFT, up(tick), "#ddd"))
        body.append(_text(left - 6, up(tick) + 4, f"{tick:g}", "end"))
    for tick in across.ticks():
        body.append(_text(across(tick), HEIGHT - BOTTOM + 16, f"{tick:g}", "middle"))
    for i, (label, (x, y)) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(x, y, strict=True))
        body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        key = TOP + 18 * i + 10
        body.append(_line(WIDTH - LEFT + 10, key, WIDTH - LEFT + 28, key, colour, 3))
        body.append(_text(WIDTH - LEFT + 34, key + 4, label, "start"))
    body.append(_text((left + WIDTH - LEFT) / 2, HEIGHT - 6, unit, "middle"))
    return _svg(body, HEIGHT)


class _Scale:
    """Maps [low, high], widened a little, to pixels."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        room = (high - low) * 0.05 or 0.5
        self.low, self.high = low - room, high + room
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self._first + share * (self._last - self._first)

    def ticks(self) -> list[float]:
        """Return round values inside."""
        span = self.high - self.low
        step = 10.0 ** (len(str(int(1 / span))) * -1) if span < 1 else 1.0
        while span / step > 8:
            step *= 2 if span / step < 16 else 5
        first = -(-self.low // step)
        count = int((self.high - first * step) // step) + 1
        return [round((first + i) * step, 10) for i in range(count)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{escape(text)}</text>"


def _svg(body: list[str], height: float) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'width="{WIDTH}" height="{height:g}" font-family="sans-serif" fill="#222">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>", ""])
