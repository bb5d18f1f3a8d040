import numpy as np
import pytest

from tag2mask.io.palette import colorize, css_color, overlay_palette, voc_palette


@pytest.mark.parametrize(
    ("index", "color"),
    [  # from the VOC development kit's published table
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (3, (128, 128, 0)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_the_palette_has_the_published_voc_colors(index, color):
    assert tuple(voc_palette()[index]) == color


def test_palette_colors_are_distinct_and_read_only():
    assert len({tuple(row) for row in voc_palette()}) == 256
    with pytest.raises(ValueError, match="read-only"):
        voc_palette()[0, 0] = 1


def test_colorize_gives_each_pixel_its_overlay_color():
    assert colorize(np.array([[0, 1]], np.uint8)).tolist() == [[[0, 0, 0], [255, 60, 60]]]
    assert css_color(1) == "rgb(255,60,60)"


def test_overlay_colors_are_light_distinct_and_read_only():
    colors = overlay_palette().astype(float)
    luma = colors @ np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709
    assert luma[1:].min() > 90  # VOC's colors begin at 9
    assert len({tuple(row) for row in colors}) == 256
    apart = np.linalg.norm(colors[1:21, None] - colors[None, 1:21], axis=2) + 1e3 * np.eye(20)
    assert apart.min() > 50
    with pytest.raises(ValueError, match="read-only"):
        overlay_palette()[0, 0] = 1
