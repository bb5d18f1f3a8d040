import numpy as np
import pytest

from tag2mask.io import depth
from tag2mask.io.depth import own_range, scale_to_8_bits


def test_12_bit_data_use_all_of_8_bits():
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    scaled = scale_to_8_bits(values)
    assert (scaled.min(), scaled.max()) == (0, 255)
    assert 120 < scaled.mean() < 135


def test_a_given_range_is_the_same_for_every_image():
    dark, bright = np.full((2, 2), 1000, np.uint16), np.full((2, 2), 9000, np.uint16)
    assert (scale_to_8_bits(dark, (0, 4000)) == 64).all()
    assert (scale_to_8_bits(bright, (0, 4000)) == 255).all()
    assert (scale_to_8_bits(dark, (2000, 4000)) == 0).all()


def test_hot_and_dead_pixels_do_not_set_the_range():
    values = np.random.default_rng(0).integers(500, 900, (100, 100)).astype(np.uint16)
    values[0, :5], values[1, :5] = 65_535, 0
    low, high = own_range(values)
    assert 499 <= low <= 510
    assert 890 <= high <= 899


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (100, 100), (65_535, 255), (25_700, 100)])
def test_an_image_of_one_value_keeps_its_brightness(value, expected):
    assert (scale_to_8_bits(np.full((3, 3), value, np.uint16)) == expected).all()


def test_bands_give_the_same_values(monkeypatch):
    values = np.random.default_rng(0).integers(0, 4096, (37, 20, 3)).astype(np.uint16)
    expected = scale_to_8_bits(values)
    monkeypatch.setattr(depth, "_BAND", 150)
    np.testing.assert_array_equal(scale_to_8_bits(values), expected)


def test_missing_values_of_a_float_raster_are_black():
    values = np.array([[np.nan, 0.0], [0.5, 1.0]])
    np.testing.assert_array_equal(scale_to_8_bits(values), [[0, 0], [128, 255]])
