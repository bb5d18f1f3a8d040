import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.io.arrays import rgb_from_array
from tag2mask.io.images import read_image, rgb_from_pil

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
RGB[0, 0], RGB[-1, -1] = 0, 255  # the complete range


def test_rgb_is_not_copied():
    assert rgb_from_array(RGB) is RGB


@pytest.mark.parametrize(
    "same",
    [
        RGB / 255,
        (RGB / 255).astype(np.float32),
        RGB.astype(np.uint16) * 257,
        RGB.astype(np.int64),
        np.dstack([RGB, np.full((5, 7), 255, np.uint8)]),
    ],
    ids=["float64", "float32", "uint16", "int64", "opaque RGBA"],
)
def test_every_form_of_an_image_gives_the_same_pixels(same):
    np.testing.assert_array_equal(rgb_from_array(same), RGB)


def test_gray_gets_three_equal_channels():
    gray = RGB[..., 0]
    for given in (gray, gray[..., None], gray / 255):
        found = rgb_from_array(given)
        assert found.shape == (5, 7, 3)
        for channel in range(3):
            np.testing.assert_array_equal(found[..., channel], gray)


def test_arrays_equal_what_pillow_reads_from_a_file(tmp_path):
    """An array and the file of the same pixels are the same image."""
    random = np.random.default_rng(1)
    clear = random.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    deep = random.integers(0, 65_536, (5, 7)).astype(np.uint16)
    for pixels in (clear, deep):
        PILImage.fromarray(pixels).save(tmp_path / "image.png")
        expected = read_image(tmp_path / "image.png").astype(int)
        assert np.abs(rgb_from_array(pixels).astype(int) - expected).max() <= 1
        assert np.abs(rgb_from_pil(PILImage.fromarray(pixels)).astype(int) - expected).max() == 0


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), r"holds several images; give list\(array\)"),
        (np.zeros((3, 8, 8), np.uint8), r"channels first; give array\.transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 2), np.uint8), r"\(8, 8, 2\) is no image; give \(H, W\) gray"),
        (np.zeros(8, np.uint8), r"\(8,\) is no image"),
        (np.zeros((0, 8, 3), np.uint8), "has no pixels"),
        (np.zeros((8, 8), bool), "an array of bool is no image"),
        (np.array([["a"]]), "is no image; give uint8"),
        (np.full((8, 8, 3), 255.0), r"float pixels lie in \[0, 1\].*from 255 to 255"),
        (np.full((8, 8), np.nan), r"float pixels lie in \[0, 1\].*nan"),
        (np.full((8, 8), -1), r"lie in 0\.\.255, but these reach from -1"),
        (np.full((8, 8), 256), r"lie in 0\.\.255.*to 256"),
    ],
)
def test_other_arrays_are_refused_in_one_line(array, message):
    with pytest.raises(DataError, match=message) as caught:
        rgb_from_array(array)
    assert "\n" not in str(caught.value)
