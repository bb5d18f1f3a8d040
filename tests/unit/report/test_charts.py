import math

import pytest

from tag2mask.report.charts import (
    FRAME,
    MAX_POINTS,
    Chart,
    bar_chart,
    line_chart,
    percent_chart,
    short_number,
    thin,
    ticks,
)


def points_of(chart: Chart) -> list[tuple[float, float]]:
    return list(chart.lines[0].points)


def bars_of(groups: dict[str, list[float]]) -> Chart:
    chart = bar_chart("weights", groups)
    assert chart is not None
    return chart


def test_line_rises_with_its_values_in_proportion() -> None:
    chart = line_chart("loss", {"a": [(0, 0.0), (5, 1.0), (10, 2.0)]})
    (x0, y0), (x1, y1), (x2, y2) = points_of(chart)
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(y1 - y2)
    assert y2 < y0  # SVG counts downwards


def test_log_values_are_spaced_by_ratio_without_zeros() -> None:
    series = {"a": [(0, 0.0), (1, 1e-5), (2, 1e-4), (3, 1e-3)]}
    chart = line_chart("lr", series, log_y=True)
    points = points_of(chart)
    assert len(points) == 3
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1])
    assert [line.text for line in chart.grid] == ["1e-05", "0.0001", "0.001"]


def test_values_that_are_not_finite_are_left_out() -> None:
    chart = line_chart("loss", {"a": [(0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0)]})
    assert len(points_of(chart)) == 2


def test_chart_without_values_has_no_lines() -> None:
    assert line_chart("loss", {}) == Chart("loss")
    assert line_chart("loss", {"a": [(0, math.nan)]}, note="x") == Chart("loss", "x")


def test_constant_and_negative_values_are_drawn() -> None:
    assert len(points_of(line_chart("score", {"a": [(100, 0.3)]}))) == 1
    assert len(points_of(line_chart("score", {"a": [(0, 0.0), (1, 0.0)]}))) == 2
    assert len(points_of(line_chart("score", {"a": [(0, -1.0), (1, -3.0)]}))) == 2


def test_legend_shows_the_last_value_of_each_series() -> None:
    chart = line_chart("x", {"a": [(0, 1.0), (1, 2.0)], "b": [(0, 2.0), (1, 0.0312)]})
    assert [(e.name, e.value, e.color) for e in chart.legend] == [
        ("a", "2", 0),
        ("b", "0.0312", 1),
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1.0]),
        (0, 8, [0, 2, 4, 6, 8]),
        (-3, 3, [-2, 0, 2]),
        (1, 1, [1]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_thinning_averages_and_keeps_the_last_step() -> None:
    points = [(step, float(step % 2)) for step in range(4 * MAX_POINTS)]
    thinned = thin(points)
    assert len(thinned) == MAX_POINTS
    assert thinned[-1] == (4 * MAX_POINTS - 1, 0.5)
    assert thin(points[:7]) == points[:7]


def test_numbers_are_written_briefly() -> None:
    assert [short_number(value) for value in (0, 0.0312, 12.5, 2000, 6e-5)] == [
        "0",
        "0.0312",
        "12.5",
        "2,000",
        "6e-05",
    ]


def test_bars_start_at_zero_and_keep_proportion() -> None:
    up, down, empty = bars_of({"a": [2.0, -1.0, 0.0]}).bars
    assert up.height == pytest.approx(2 * down.height)
    zero = up.y + up.height
    assert down.y == pytest.approx(zero)  # SVG counts downwards
    assert empty.height == 0
    assert empty.y == pytest.approx(zero)


def test_bars_stand_side_by_side_inside_the_plot() -> None:
    bars = bars_of({"a": [1.0] * 5, "b": [0.5] * 3}).bars
    ends = [bar.x + bar.width for bar in bars]
    assert all(end < bar.x for end, bar in zip(ends, bars[1:], strict=False))
    assert bars[0].x > 56
    assert ends[-1] < FRAME.width - FRAME.right


def test_groups_differ_in_color_and_count_from_one() -> None:
    chart = bars_of({"<first>": [1.0, 2.0], "second": [3.0]})
    assert [bar.color for bar in chart.bars] == [0, 0, 1]
    assert [label.text for label in chart.labels] == ["1", "2", "1"]
    assert [entry.name for entry in chart.legend] == ["<first>", "second"]
    assert chart.bars[2].text == "second, 1: 3"


def test_zero_line_is_marked_and_zero_bars_are_drawn() -> None:
    assert [line.is_zero for line in bars_of({"a": [1.0, -1.0]}).grid].count(True) == 1
    assert [bar.height for bar in bars_of({"a": [0.0, 0.0]}).bars] == [0, 0]


def test_no_values_make_no_bar_chart() -> None:
    assert bar_chart("weights", {}) is None
    assert bar_chart("weights", {"a": []}) is None


def test_values_that_no_axis_can_show_are_drawn_as_zero_or_left_out():
    tiny, huge = line_chart("t", {"a": [(0, 5e-324), (1, 1e-310)]}), [(0, 1e308), (1, -1e308)]
    assert tiny.legend[0].value == "0"
    assert line_chart("t", {"a": huge}).lines == ()
    assert line_chart("t", {"a": [(0, 1.7e308), (1, 5e-324)]}, log_y=True).lines == ()


def test_percentages_span_complete_axes_with_marker_and_diagonal() -> None:
    chart = percent_chart(
        "sweep", {"mIoU": [(0, 0), (1, 100)]}, x_max=1.0, marker=0.5, diagonal="perfect"
    )
    measured, perfect = chart.lines
    corners = [(FRAME.x(0), FRAME.y(0)), (FRAME.x(1), FRAME.y(1))]
    assert list(measured.points) == list(perfect.points) == corners
    assert (measured.is_dashed, perfect.is_dashed) == (False, True)
    assert chart.markers == (FRAME.x(0.5),)
    assert [entry.name for entry in chart.legend] == ["mIoU", "perfect"]
    assert percent_chart("sweep", {"mIoU": []}).markers == ()
