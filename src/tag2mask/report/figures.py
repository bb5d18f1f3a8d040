"""Line charts as inline SVG, colored by the page's style sheet; no drawing library is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 28
"""Margins around the plot in SVG units."""
MAX_POINTS = 400
"""Longer series are thinned by averaging neighbors; a screen shows no more."""
MAX_COLORS = 8
"""Line colors `--line-0` .. that the page's style sheet defines."""

Points = Sequence[tuple[float, float]]


def line_chart(title: str, series: Mapping[str, Points], *, log_y: bool = False) -> str:
    """Draw named series over training steps.

    Args:
        title: Heading of the figure.
        series: Name -> (step, value) pairs, rising steps; what is no finite number is left out.
        log_y: Logarithmic values; those at or below 0 are left out.

    Returns:
        A `<figure>` element; without any point it says so.
    """
    cleaned = {name: _cleaned(points, log_y) for name, points in series.items()}
    cleaned = {name: thinned(points) for name, points in cleaned.items() if points}
    heading = f"<figcaption>{escape(title)}</figcaption>"
    if not cleaned:
        return f'<figure class="chart">{heading}<p class="missing">nothing logged</p></figure>'
    steps = [x for points in cleaned.values() for x, _ in points]
    values = [_scaled(y, log_y) for points in cleaned.values() for _, y in points]
    x_axis, y_axis = (min(0.0, *steps), max(steps)), _padded(min(values), max(values), log_y)
    lines, legend = [], []
    for position, (name, points) in enumerate(cleaned.items()):
        color = f"var(--line-{position % MAX_COLORS})"
        lines.append(_polyline(points, x_axis, y_axis, log_y, color))
        last = short_number(points[-1][1])
        legend.append(
            f'<li><i style="background:{color}"></i>{escape(name)} <b>{escape(last)}</b></li>'
        )
    body = _grid(x_axis, y_axis, log_y) + "".join(lines)
    return (
        f'<figure class="chart">{heading}'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'
        f'<ul class="legend">{"".join(legend)}</ul></figure>'
    )


def thinned(points: Points) -> list[tuple[float, float]]:
    """Average neighboring points until at most MAX_POINTS are left; the last step stays."""
    stride = -(-len(points) // MAX_POINTS)
    groups = [points[i : i + stride] for i in range(0, len(points), stride)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high], about `count`."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _cleaned(points: Points, log_y: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log_y)]


def _scaled(value: float, log_y: bool) -> float:
    return math.log10(value) if log_y else value


def _padded(low: float, high: float, log_y: bool) -> tuple[float, float]:
    """Range of the value axis: from 0 where linear values are positive, never of zero length."""
    if log_y:
        low, high = math.floor(low), math.ceil(high)
    elif low >= 0:
        low, high = 0.0, high * 1.05
    return (low, high) if high > low else (low, low + 1.0)


def _place(
    x: float, y: float, x_axis: tuple[float, float], y_axis: tuple[float, float]
) -> tuple[float, float]:
    """Plot coordinates of a point."""
    across = (x - x_axis[0]) / max(x_axis[1] - x_axis[0], 1e-12)
    up = (y - y_axis[0]) / (y_axis[1] - y_axis[0])
    return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _polyline(
    points: Points,
    x_axis: tuple[float, float],
    y_axis: tuple[float, float],
    log_y: bool,
    color: str,
) -> str:
    placed = [_place(x, _scaled(y, log_y), x_axis, y_axis) for x, y in points]
    if len(placed) == 1:
        x, y = placed[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{color}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return f'<polyline points="{path}" style="stroke:{color}"/>'


def _grid(x_axis: tuple[float, float], y_axis: tuple[float, float], log_y: bool) -> str:
    """Horizontal lines with values, and step numbers below."""
    parts = []
    for value in ticks(*y_axis):
        if log_y and value != round(value):
            continue
        _, y = _place(x_axis[0], value, x_axis, y_axis)
        shown = short_number(10**value if log_y else value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
    for step in ticks(*x_axis, count=5):
        x, _ = _place(step, y_axis[0], x_axis, y_axis)
        anchor = "end" if x > WIDTH - RIGHT - 20 else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{short_number(step)}</text>'
        )
    return "".join(parts)


def short_number(value: float) -> str:
    """Short text of a number: 0.0312, 12.5, 2,000, 6e-05."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.3g}"
