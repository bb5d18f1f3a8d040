"""Mask files: read and checked, renumbered, and written as indexed PNG."""

import numpy as np
import pytest
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.io.masks import (
    has_few_colors,
    is_probably_mask,
    read_indices,
    read_mask,
    renumber,
    save_mask,
)


def _save(array, path):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


def test_palette_and_gray_masks_give_the_same_indices(tmp_path):
    indices = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    image = Image.fromarray(indices)
    image.save(tmp_path / "gray.png")
    image.putpalette([7] * 768)
    image.save(tmp_path / "palette.png")
    Image.fromarray(indices.astype(np.uint16)).save(tmp_path / "wide.png")
    for name in ("gray", "palette", "wide"):
        mask = read_mask(tmp_path / f"{name}.png", 2)
        np.testing.assert_array_equal(mask, indices)
        assert mask.dtype == np.uint8


def test_a_value_that_is_no_class_is_rejected_with_its_file(tmp_path):
    path = _save([[0, 1, 3, 255]], tmp_path / "cow.png")
    with pytest.raises(DataError, match=r"cow\.png: pixel value 3 is no class"):
        read_mask(path, 2)
    assert read_mask(path, 3).max() == 255


def test_a_16_bit_value_does_not_wrap_around(tmp_path):
    Image.fromarray(np.array([[0, 257]], dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="pixel value 257"):
        read_mask(tmp_path / "a.png", 2)


def test_a_color_image_is_rejected(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    with pytest.raises(DataError, match=r"a\.png: a color image \(RGB\)"):
        read_mask(_save(noise, tmp_path / "a.png"), 2)


def test_a_mask_of_a_different_size_is_rejected_with_both_sizes(tmp_path):
    path = _save(np.zeros((2, 3)), tmp_path / "a.png")
    assert read_mask(path, 1, (2, 3)).shape == (2, 3)
    with pytest.raises(DataError, match="the mask has 3x2 px, but its image has 2x3 px"):
        read_mask(path, 1, (3, 2))


def test_a_damaged_or_missing_mask_is_rejected(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"a\.png"):
        read_mask(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        read_mask(tmp_path / "b.png", 1)


def test_renumber_maps_to_the_chosen_order_and_ignores_other_classes():
    table = renumber(("cat", "cow", "dog"), ("dog", "cat"))
    np.testing.assert_array_equal(table[[0, 1, 2, 3, 4, 254, 255]], [0, 2, 255, 1, 255, 255, 255])


def test_a_saved_mask_is_an_indexed_image_with_the_same_values(tmp_path):
    mask = np.array([[0, 1, 255], [20, 3, 0]], np.uint8)
    save_mask(mask, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as opened:
        assert opened.mode == "P"
        assert np.array_equal(np.asarray(opened), mask)
        assert opened.convert("RGB").getpixel((2, 0)) == (224, 224, 192)
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_a_failed_save_leaves_the_previous_mask_intact(tmp_path, monkeypatch):
    path = tmp_path / "m.png"
    save_mask(np.ones((2, 2), np.uint8), path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_mask(np.zeros((2, 2), np.uint8), path)
    monkeypatch.undo()
    with Image.open(path) as opened:
        assert np.asarray(opened).tolist() == [[1, 1], [1, 1]]


def test_indices_are_read_unchecked(tmp_path):
    values = np.array([[0, 7, 255], [200, 1, 2]], dtype=np.uint8)
    save_mask(values, tmp_path / "palette.png")
    Image.fromarray(values).save(tmp_path / "gray.png")
    Image.fromarray(values.astype(np.uint16) * 2).save(tmp_path / "deep.png")
    for name, factor in (("palette", 1), ("gray", 1), ("deep", 2)):
        found = read_indices(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(found, values.astype(int) * factor)
    Image.new("RGB", (3, 2)).save(tmp_path / "color.png")
    with pytest.raises(DataError, match=r"color\.png: a color image \(RGB\)"):
        read_indices(tmp_path / "color.png")


@pytest.mark.parametrize(
    ("mode", "values", "is_mask", "has_few"),
    [("L", 5, True, True), ("L", 200, False, False), ("RGB", 5, False, True), ("1", 2, True, True)],
)
def test_masks_are_recognized_by_few_values(tmp_path, mode, values, is_mask, has_few):
    pixels = (np.arange(400) % values).reshape(20, 20).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    assert is_probably_mask(tmp_path / "a.png") is is_mask
    assert has_few_colors(tmp_path / "a.png") is has_few
    Image.fromarray(pixels[:15]).convert(mode).save(tmp_path / "small.png")
    assert not has_few_colors(tmp_path / "small.png")
    assert not has_few_colors(tmp_path / "missing.png")
