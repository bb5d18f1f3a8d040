import math
import re
from xml.etree import ElementTree

import pytest

from tag2mask.report.figures import MAX_POINTS, line_chart, thinned, ticks


def coordinates(chart: str) -> list[tuple[float, float]]:
    found = re.search(r'points="([^"]+)"', chart)
    assert found is not None
    affinity_maps = [pair.split(",") for pair in found[1].split()]
    return [(float(x), float(y)) for x, y in affinity_maps]


def test_line_rises_when_values_rise_and_keeps_proportion() -> None:
    points = coordinates(line_chart("loss", {"a": [(0, 0.0), (5, 1.0), (10, 2.0)]}))
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y2 < y0  # SVG counts downwards


def test_log_values_are_spaced_by_ratio_and_zeros_left_out() -> None:
    chart = line_chart("lr", {"a": [(0, 0.0), (1, 1e-5), (2, 1e-4), (3, 1e-3)]}, log_y=True)
    points = coordinates(chart)
    assert len(points) == 3
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.11)


def test_values_that_are_no_numbers_are_left_out() -> None:
    chart = line_chart("loss", {"a": [(0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0)]})
    assert len(coordinates(chart)) == 2


def test_nothing_to_draw_says_so() -> None:
    assert "nothing logged" in line_chart("loss", {})
    assert "nothing logged" in line_chart("loss", {"a": [(0, math.nan)]})


def test_single_point_constant_and_negative_values_are_drawn() -> None:
    assert "<circle" in line_chart("score", {"a": [(100, 0.3)]})
    assert len(coordinates(line_chart("score", {"a": [(0, 0.0), (1, 0.0)]}))) == 2
    assert len(coordinates(line_chart("score", {"a": [(0, -1.0), (1, -3.0)]}))) == 2


def test_chart_is_well_formed_and_names_are_escaped() -> None:
    chart = line_chart("a < b & c", {'<"x">': [(0, 1.0), (1, 2.0)], "y": [(0, 2.0), (1, 3.0)]})
    tree = ElementTree.fromstring(chart)
    assert len(tree.findall(".//polyline")) == 2
    assert [item.text for item in tree.findall(".//li/b")] == ["2", "3"]


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
    thin = thinned(points)
    assert len(thin) == MAX_POINTS
    assert thin[-1] == (4 * MAX_POINTS - 1, 0.5)
    assert thinned(points[:7]) == points[:7]
