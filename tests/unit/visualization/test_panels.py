import numpy as np
import pytest

from tag2mask.visualization.panels import (
    HEAT,
    MARK,
    Panel,
    draw_strip,
    heat_colors,
    heat_over,
    legend,
    stretched,
)


def test_heat_runs_from_dark_to_light() -> None:
    colors = heat_colors(np.linspace(0, 1, 50, dtype=np.float32)[None])
    assert colors[0, 0].tolist() == list(HEAT[0])
    assert colors[0, -1].tolist() == list(HEAT[-1])
    light = colors[0].astype(int).sum(axis=1)
    assert (np.diff(light) > 0).all()


@pytest.mark.parametrize("size", [(3, 400), (400, 3), (1, 1)])
def test_odd_shapes_are_drawn(size: tuple[int, int]) -> None:
    panel = Panel(np.zeros((*size, 3), dtype=np.uint8), "image", note="tags: " + "very long " * 20)
    strip = draw_strip([panel] * 3)
    assert strip.size[0] <= 3 * 330
    assert strip.size[1] < 260


def test_narrow_panels_leave_room_for_their_captions() -> None:
    narrow = np.zeros((168, 90, 3), dtype=np.uint8)
    values = ((1, "a long name 0.97"), (2, "another name 0.61"))
    panels = [Panel(narrow, "image"), Panel(narrow, "prediction", values)]
    strip = np.asarray(draw_strip(panels))
    captions = (strip[6 + 168 :] < 200).any(axis=(0, 2))  # columns with ink or a swatch
    last = captions.nonzero()[0].max()
    assert last > 6 + 90 + 6 + 2 * 90  # beyond the picture
    assert strip.shape[1] - last > 6  # and not up to the end of the strip, where it would be cut
    assert strip.shape[1] <= 3 * 6 + 90 + 320


def test_point_and_window_are_drawn_where_they_lie() -> None:
    black = np.zeros((50, 100, 3), dtype=np.uint8)
    marked = Panel(black, "affinity", point=(0.75, 0.5), window=(0.25, 0.0, 1.0, 0.5))
    bare, strip = (np.asarray(draw_strip([panel])) for panel in (Panel(black, "x"), marked))
    found = (strip == MARK).all(axis=2)
    assert not (bare == MARK).all(axis=2).any()
    height, width = 160, 320  # the image fills the widest panel
    rows, columns = found.nonzero()
    assert (rows.min(), columns.min(), columns.max()) == (6, 6 + width // 4, 6 + width - 1)
    assert found[6 + height // 2, 6 + 3 * width // 4]
    assert not found[6 + height // 4, 6 + width // 2]  # a frame, not a filled box
    assert found[6 + height // 2 - 1, 6 + width // 2]
    assert not found[6 + height // 2 + 5 :].any()


def test_stretching_spans_all_colors_and_takes_even_values() -> None:
    propagate_cam = stretched(np.array([[0.5, 0.6, 0.7]], dtype=np.float32))
    np.testing.assert_allclose(propagate_cam, [[0, 0.5, 1]], atol=1e-6)
    assert (stretched(np.full((2, 2), 0.5, dtype=np.float32)) == 0).all()


def test_heat_lies_over_a_gray_image() -> None:
    image = np.array([[[30, 60, 90], [0, 0, 0]]], dtype=np.uint8)
    picture = heat_over(image, np.array([[0, 1]], dtype=np.float32))
    np.testing.assert_allclose(picture[0, 0], 0.25 * 60 + 0.75 * np.array(HEAT[0]), atol=0.5)
    np.testing.assert_allclose(picture[0, 1], 0.75 * np.array(HEAT[-1]), atol=0.5)


def test_legend_names_classes_that_own_a_pixel() -> None:
    mask = np.array([[0, 2, 255], [2, 0, 0]], dtype=np.uint8)
    assert legend(mask, ("cat", "cow")) == ((2, "cow"),)
