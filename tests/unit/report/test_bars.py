from xml.etree import ElementTree

import pytest

from tag2mask.report.bars import bar_chart


def rectangles(chart: str) -> list[dict[str, float]]:
    found = ElementTree.fromstring(chart).iter("rect")
    return [
        {key: float(bar.get(key, "nan")) for key in ("x", "y", "width", "height")} for bar in found
    ]


def test_bars_start_at_zero_and_keep_proportion() -> None:
    up, down, none = rectangles(bar_chart("weights", {"a": [2.0, -1.0, 0.0]}))
    assert up["height"] == pytest.approx(2 * down["height"], abs=0.15)
    zero = up["y"] + up["height"]
    assert down["y"] == pytest.approx(zero, abs=0.11)  # SVG counts downwards
    assert none["height"] == 0
    assert none["y"] == pytest.approx(zero, abs=0.11)


def test_bars_stand_side_by_side_inside_the_plot() -> None:
    bars = rectangles(bar_chart("weights", {"a": [1.0] * 5, "b": [0.5] * 3}))
    ends = [bar["x"] + bar["width"] for bar in bars]
    assert all(end < bar["x"] for end, bar in zip(ends, bars[1:], strict=False))
    assert bars[0]["x"] > 56
    assert ends[-1] < 640 - 12


def test_groups_differ_in_color_and_count_from_one() -> None:
    tree = ElementTree.fromstring(bar_chart("a & b", {"<first>": [1.0, 2.0], "second": [3.0]}))
    colors = [bar.get("style") for bar in tree.iter("rect")]
    assert colors[0] == colors[1] != colors[2]
    numbers = [text.text for text in tree.iter("text") if text.get("text-anchor") == "middle"]
    assert numbers == ["1", "2", "1"]
    assert ["".join(item.itertext()) for item in tree.iter("li")] == ["<first>", "second"]
    assert [title.text for title in tree.iter("title")][2] == "second, 1: 3"


def test_zero_line_stands_out_and_even_bars_are_drawn() -> None:
    assert bar_chart("weights", {"a": [1.0, -1.0]}).count('class="zero"') == 1
    assert [bar["height"] for bar in rectangles(bar_chart("weights", {"a": [0.0, 0.0]}))] == [0, 0]


def test_no_values_no_chart() -> None:
    assert bar_chart("weights", {}) == ""
    assert bar_chart("weights", {"a": []}) == ""
