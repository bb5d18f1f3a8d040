import numpy as np

from tag2mask.io.palette import overlay_palette
from tag2mask.visualization.panels import (
    MARK,
    Panel,
    caption_width,
    draw_panel,
    mask_legend,
    overlay_mask,
)


def test_point_and_window_are_drawn_in_place() -> None:
    black = np.zeros((50, 100, 3), dtype=np.uint8)
    marked = Panel(black, "affinity", point=(0.75, 0.5), window=(0.25, 0.0, 1.0, 0.5))
    width, height = 320, 160
    bare, drawn = (
        np.asarray(draw_panel(panel, (width, height), width))
        for panel in (Panel(black, "x"), marked)
    )
    marks = (drawn == MARK).all(axis=2)
    assert not (bare == MARK).all(axis=2).any()
    rows, columns = marks.nonzero()
    assert (rows.min(), columns.min(), columns.max()) == (0, width // 4, width - 1)
    assert marks[height // 2, 3 * width // 4]
    assert not marks[height // 4, width // 2]  # a frame, not a filled box
    assert marks[height // 2 - 1, width // 2]
    assert not marks[height // 2 + 5 :].any()


def test_caption_width_fits_the_longer_line() -> None:
    black = np.zeros((4, 4, 3), dtype=np.uint8)
    short, long = Panel(black, "a", note="b"), Panel(black, "a", note="b" * 20)
    assert caption_width(long) > 10 * caption_width(short) / 2
    assert caption_width(Panel(black, "b" * 20, note="a")) == caption_width(long)
    assert caption_width(Panel(black, "a", ((1, "b" * 20),))) > caption_width(long)


def test_mask_colors_objects_and_dims_background() -> None:
    image = np.full((1, 2, 3), 100, dtype=np.uint8)
    picture = overlay_mask(image, np.array([[0, 2]], dtype=np.uint8))
    assert picture[0, 0].tolist() == [60, 60, 60]
    np.testing.assert_allclose(picture[0, 1], 35 + 0.65 * overlay_palette()[2], atol=0.5)


def test_legend_lists_the_classes_of_a_mask() -> None:
    mask = np.array([[0, 2, 255], [2, 0, 0]], dtype=np.uint8)
    assert mask_legend(mask, ("cat", "cow")) == ((2, "cow"),)
