import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.io.masks import save_mask
from tag2mask.io.palette import colorize, voc_palette


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
def test_palette_has_the_published_voc_colors(index, color):
    assert tuple(voc_palette()[index]) == color


def test_palette_colors_are_all_different_and_cannot_be_changed():
    assert len({tuple(row) for row in voc_palette()}) == 256
    with pytest.raises(ValueError, match="read-only"):
        voc_palette()[0, 0] = 1


def test_colorize_paints_each_pixel():
    assert colorize(np.array([[0, 15]], np.uint8)).tolist() == [[[0, 0, 0], [192, 128, 128]]]


def test_saved_mask_is_an_indexed_picture_with_the_same_values(tmp_path):
    mask = np.array([[0, 1, 255], [20, 3, 0]], np.uint8)
    save_mask(mask, tmp_path / "m.png")
    with PILImage.open(tmp_path / "m.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), mask)
        assert picture.convert("RGB").getpixel((2, 0)) == (224, 224, 192)
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_failed_save_leaves_the_former_mask_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.png"
    save_mask(np.ones((2, 2), np.uint8), path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PILImage.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_mask(np.zeros((2, 2), np.uint8), path)
    monkeypatch.undo()
    with PILImage.open(path) as picture:
        assert np.asarray(picture).tolist() == [[1, 1], [1, 1]]
