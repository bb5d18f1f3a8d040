"""Bar charts as inline SVG, colored by the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tag2mask.report.figures import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_COLORS,
    RIGHT,
    TOP,
    WIDTH,
    short_number,
    ticks,
)

GAP_SHARE = 0.25
"""Part of a bar's place that stays empty."""


def bar_chart(title: str, groups: Mapping[str, Sequence[float]]) -> str:
    """Draw values, positive or negative, as bars from a common zero line.

    Args:
        title: Heading of the figure.
        groups: Name -> finite values; each group has a color, its bars are numbered from 1.

    Returns:
        A `<figure>` element; "" where there is no value.
    """
    values = [value for group in groups.values() for value in group]
    if not values:
        return ""
    low, high = min(0.0, *values), max(0.0, *values)
    if low == high:
        high = low + 1.0
    step = (WIDTH - LEFT - RIGHT) / len(values)
    parts, legend, place = [_levels(low, high)], [], 0
    for position, (name, group) in enumerate(groups.items()):
        color = f"var(--line-{position % MAX_COLORS})"
        legend.append(f'<li><i style="background:{color}"></i>{escape(name)}</li>')
        for number, value in enumerate(group, 1):
            top, bottom = _height(max(value, 0), low, high), _height(min(value, 0), low, high)
            x = LEFT + place * step
            place += 1
            middle = x + step / 2
            parts.append(
                f'<rect x="{x + step * GAP_SHARE / 2:.1f}" y="{top:.1f}" '
                f'width="{step * (1 - GAP_SHARE):.1f}" height="{bottom - top:.1f}" '
                f'style="fill:{color}"><title>{escape(name)}, {number}: '
                f"{short_number(value)}</title></rect>"
                f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{number}</text>'
            )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(parts)}</svg><ul class="legend">{"".join(legend)}</ul></figure>'
    )


def _height(value: float, low: float, high: float) -> float:
    """Plot coordinate of a value; SVG counts downwards."""
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _levels(low: float, high: float) -> str:
    """Horizontal lines with their values; the zero line stands out."""
    parts = []
    for value in ticks(low, high):
        y = _height(value, low, high)
        kind = ' class="zero"' if value == 0 else ""
        parts.append(f'<line{kind} x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        shown = short_number(value)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
    return "".join(parts)
