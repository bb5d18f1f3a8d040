"""Line and bar charts as coordinates; `templates/chart.html` draws them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

MAX_POINTS = 400
"""Longer series are thinned by averaging neighbors; a screen shows no more."""
MAX_COLORS = 8
"""The style sheet defines colors `--line-0` to `--line-7`."""
GAP_SHARE = 0.25
"""Share of a bar's slot that stays empty."""

Points = Sequence[tuple[float, float]]
"""(step, value) pairs, or (x, y) in SVG units."""


class Frame(NamedTuple):
    """Size of a chart and the margins around its plot, in SVG units."""

    width: float = 500
    height: float = 250
    left: float = 56
    right: float = 12
    top: float = 12
    bottom: float = 44

    def x(self, share: float) -> float:
        """Return the coordinate of a share of the plot's width, from the left."""
        return self.left + share * (self.width - self.left - self.right)

    def y(self, share: float) -> float:
        """Return the coordinate of a share of the plot's height, from the bottom."""
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)


FRAME = Frame()


class Label(NamedTuple):
    """Text below the plot."""

    x: float
    text: str
    anchor: Literal["middle", "end"] = "middle"


_SMALLEST, _LARGEST = 1e-30, 1e30
"""Values between are drawn."""


class GridLine(NamedTuple):
    """Horizontal line with its value."""

    y: float
    text: str
    is_zero: bool


class Line(NamedTuple):
    """One series; a few points are drawn as dots, too."""

    points: Points
    color: int
    is_dashed: bool = False
    """Whether it is drawn for comparison only."""


class Bar(NamedTuple):
    """One value, drawn from the zero line."""

    x: float
    y: float
    width: float
    height: float
    color: int
    text: str
    """Shown while the mouse is over the bar."""


class LegendEntry(NamedTuple):
    """One series or group of bars."""

    name: str
    color: int
    value: str = ""
    """Last value of a series."""


class Chart(NamedTuple):
    """Everything that a chart draws; without marks it says that nothing is logged."""

    title: str
    note: str = ""
    """Explanation below the title."""
    grid: tuple[GridLine, ...] = ()
    labels: tuple[Label, ...] = ()
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    legend: tuple[LegendEntry, ...] = ()
    x_title: str = ""
    markers: tuple[float, ...] = ()
    """Where vertical lines are drawn."""
    explanations: Mapping[str, str] = {}
    """Names in the legend that need one, below the chart."""


def line_chart(
    title: str,
    series: Mapping[str, Points],
    *,
    log_y: bool = False,
    note: str = "",
    x_title: str = "step",
) -> Chart:
    """Draw named series over training steps.

    Args:
        title: Heading of the chart.
        series: Name -> (step, value) pairs, steps rising; values that are not finite are left out.
        log_y: Logarithmic value axis; values at or below 0 are left out.
        note: Explanation below the title.
        x_title: What the steps are.
    """
    cleaned = {name: _clean(points, log_y) for name, points in series.items()}
    cleaned = {name: thin(points) for name, points in cleaned.items() if points}
    if not cleaned:
        return Chart(title, note)
    steps = [x for points in cleaned.values() for x, _ in points]
    values = [_scale(y, log_y) for points in cleaned.values() for _, y in points]
    x_axis, y_axis = (min(0.0, *steps), max(steps)), _value_axis(min(values), max(values), log_y)
    lines, legend = [], []
    for position, (name, points) in enumerate(cleaned.items()):
        color = position % MAX_COLORS
        placed = [
            (FRAME.x(_share(x, x_axis)), FRAME.y(_share(_scale(y, log_y), y_axis)))
            for x, y in points
        ]
        lines.append(Line(placed, color))
        legend.append(LegendEntry(name, color, short_number(points[-1][1])))
    labels = _step_labels(x_axis)
    grid = _grid(y_axis, log_y)
    return Chart(title, note, grid, labels, tuple(lines), (), tuple(legend), x_title)


def percent_chart(
    title: str,
    series: Mapping[str, Points],
    *,
    note: str = "",
    x_title: str = "",
    x_max: float = 100.0,
    marker: float | None = None,
    diagonal: str = "",
) -> Chart:
    """Draw percentages over values from 0 to `x_max`; both axes are complete.

    Args:
        title: Heading of the chart.
        series: Name -> (x, y) pairs in [0, x_max] and [0, 100].
        note: Explanation below the title.
        x_title: What x is.
        x_max: End of the x axis.
        marker: x of a vertical line.
        diagonal: Name of a dashed line from corner to corner; empty for none.
    """
    x_axis, y_axis = (0.0, x_max), (0.0, 100.0)

    def scaled(points: Points) -> Points:
        return [(FRAME.x(_share(x, x_axis)), FRAME.y(_share(y, y_axis))) for x, y in points]

    lines = [Line(scaled(points), at) for at, points in enumerate(series.values())]
    legend = [LegendEntry(name, at) for at, name in enumerate(series)]
    if diagonal:
        lines.append(Line(scaled([(0, 0), (x_max, 100)]), MAX_COLORS - 1, is_dashed=True))
        legend.append(LegendEntry(diagonal, MAX_COLORS - 1))
    markers = () if marker is None else (FRAME.x(_share(marker, x_axis)),)
    return Chart(
        title, note, _grid(y_axis), _step_labels(x_axis), tuple(lines), (), tuple(legend), x_title,
        markers,
    )  # fmt: skip


def bar_chart(title: str, groups: Mapping[str, Sequence[float]]) -> Chart | None:
    """Draw values, positive or negative, as bars from a common zero line.

    Args:
        title: Heading of the chart.
        groups: Name -> finite values; each group has a color, its bars are numbered from 1.

    Returns:
        None if there is no value.
    """
    values = [value for group in groups.values() for value in group]
    if not values:
        return None
    low, high = min(0.0, *values), max(0.0, *values)
    axis = (low, high if high > low else low + 1.0)
    slot = (FRAME.width - FRAME.left - FRAME.right) / len(values)
    bars: list[Bar] = []
    labels, legend = [], []
    for position, (name, group) in enumerate(groups.items()):
        color = position % MAX_COLORS
        legend.append(LegendEntry(name, color))
        for number, value in enumerate(group, 1):
            left = FRAME.left + len(bars) * slot
            top, bottom = (FRAME.y(_share(end, axis)) for end in (max(value, 0), min(value, 0)))
            text = f"{name}, {number}: {short_number(value)}"
            width = slot * (1 - GAP_SHARE)
            bars.append(Bar(left + slot * GAP_SHARE / 2, top, width, bottom - top, color, text))
            labels.append(Label(left + slot / 2, str(number)))
    return Chart(title, "", _grid(axis), tuple(labels), (), tuple(bars), tuple(legend))


def thin(points: Points) -> list[tuple[float, float]]:
    """Average neighboring points until at most MAX_POINTS remain; the last step stays."""
    stride = -(-len(points) // MAX_POINTS)
    groups = [points[i : i + stride] for i in range(0, len(points), stride)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers in [low, high], 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def short_number(value: float) -> str:
    """Format a number briefly: 0.0312, 12.5, 2,000, 6e-05."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.3g}"


def _clean(points: Points, log_y: bool) -> list[tuple[float, float]]:
    """Leave out what cannot be drawn; a value that no axis can tell from 0 is 0."""
    cleaned = [(x, y if abs(y) > _SMALLEST else 0.0) for x, y in points if abs(y) < _LARGEST]
    return [(x, y) for x, y in cleaned if y > 0 or not log_y]


def _scale(value: float, log_y: bool) -> float:
    return math.log10(value) if log_y else value


def _share(value: float, axis: tuple[float, float]) -> float:
    """Return where on an axis a value lies: 0 at its start, 1 at its end."""
    return (value - axis[0]) / max(axis[1] - axis[0], 1e-12)


def _value_axis(low: float, high: float, log_y: bool) -> tuple[float, float]:
    """Return the ends of the value axis: from 0 if linear values are positive, never empty."""
    if log_y:
        low, high = math.floor(low), math.ceil(high)
    elif low >= 0:
        low, high = 0.0, high * 1.05
    return (low, high) if high > low else (low, low + 1.0)


def _grid(axis: tuple[float, float], log_y: bool = False) -> tuple[GridLine, ...]:
    lines = []
    for value in ticks(*axis):
        if not log_y:
            lines.append(GridLine(FRAME.y(_share(value, axis)), short_number(value), value == 0))
        elif value == round(value):
            text = short_number(10**value)
            lines.append(GridLine(FRAME.y(_share(value, axis)), text, is_zero=False))
    return tuple(lines)


def _step_labels(axis: tuple[float, float]) -> tuple[Label, ...]:
    labels = []
    for step in ticks(*axis, count=5):
        x = FRAME.x(_share(step, axis))
        anchor: Literal["middle", "end"] = "end" if x > FRAME.width - FRAME.right - 20 else "middle"
        labels.append(Label(x, short_number(step), anchor))
    return tuple(labels)
