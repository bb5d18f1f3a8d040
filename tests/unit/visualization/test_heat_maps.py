import numpy as np
import torch

from tag2mask.visualization.heat_maps import (
    HEAT_COLORS,
    colorize_heat,
    overlay_heat,
    overlay_map,
    stretch,
)


def test_heat_runs_from_dark_to_light() -> None:
    colors = colorize_heat(np.linspace(0, 1, 50, dtype=np.float32)[None])
    assert colors[0, 0].tolist() == list(HEAT_COLORS[0])
    assert colors[0, -1].tolist() == list(HEAT_COLORS[-1])
    light = colors[0].astype(int).sum(axis=1)
    assert (np.diff(light) > 0).all()


def test_stretching_spans_all_colors_and_accepts_constant_values() -> None:
    stretched = stretch(np.array([[0.5, 0.6, 0.7]], dtype=np.float32))
    np.testing.assert_allclose(stretched, [[0, 0.5, 1]], atol=1e-6)
    assert (stretch(np.full((2, 2), 0.5, dtype=np.float32)) == 0).all()


def test_heat_lies_over_a_gray_image() -> None:
    image = np.array([[[30, 60, 90], [0, 0, 0]]], dtype=np.uint8)
    picture = overlay_heat(image, np.array([[0, 1]], dtype=np.float32))
    expected = 0.25 * 60 + 0.75 * np.array(HEAT_COLORS[0])
    np.testing.assert_allclose(picture[0, 0], expected, atol=0.5)
    np.testing.assert_allclose(picture[0, 1], 0.75 * np.array(HEAT_COLORS[-1]), atol=0.5)


def test_a_map_is_resized_to_its_image_and_stretched() -> None:
    picture = overlay_map(np.zeros((8, 16, 3), dtype=np.uint8), torch.tensor([[0.2, 0.3]]))
    assert picture.shape == (8, 16, 3)
    np.testing.assert_allclose(picture[0, 0], 0.75 * np.array(HEAT_COLORS[0]), atol=0.5)
    np.testing.assert_allclose(picture[-1, -1], 0.75 * np.array(HEAT_COLORS[-1]), atol=0.5)
