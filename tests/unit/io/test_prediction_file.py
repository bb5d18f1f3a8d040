import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.errors import DataError, RunError
from tag2mask.io.masks import read_mask
from tag2mask.types import Prediction

MASK = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)
IMAGE = np.full((2, 3, 3), 100, np.uint8)


def prediction(cam: np.ndarray | None = None) -> Prediction:
    return Prediction(MASK, ("cat", "dog"), {"cat": 0.75, "dog": 0.25}, "tags", IMAGE, cam)


def test_png_is_a_mask_with_a_palette_that_other_programs_read(tmp_path):
    path = prediction().save(tmp_path / "new" / "image.png")
    with PILImage.open(path) as opened:
        assert opened.mode == "P"
        np.testing.assert_array_equal(np.asarray(opened), MASK)
    np.testing.assert_array_equal(read_mask(path, 2), MASK)


def test_arrays_come_back(tmp_path):
    np.testing.assert_array_equal(np.load(prediction().save(tmp_path / "a.npy")), MASK)
    cam = np.random.default_rng(0).random((2, 4, 5), dtype=np.float32)
    with np.load(prediction(cam).save(str(tmp_path / "a.npz"))) as arrays:
        np.testing.assert_array_equal(arrays["mask"], MASK)
        np.testing.assert_array_equal(arrays["cam"], cam)
        assert arrays["class_names"].tolist() == ["cat", "dog"]
        assert arrays["scores"].tolist() == [0.75, 0.25]
    with np.load(prediction().save(tmp_path / "b.npz")) as arrays:
        assert "cam" not in arrays


def test_overlay_is_a_picture_of_the_image(tmp_path):
    path = prediction().save(tmp_path / "a.png", format="overlay")
    with PILImage.open(path) as opened:
        np.testing.assert_array_equal(np.asarray(opened), prediction().overlay())
    with PILImage.open(prediction().save(tmp_path / "a.jpg")) as opened:
        assert (opened.format, opened.size) == ("JPEG", (3, 2))


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("a.bmp", None, r"a\.bmp: the suffix says no format; use \.png, \.npy"),
        ("a", None, "the suffix says no format"),
        ("a.json", "coco", r"unknown format 'coco'.*'tag2mask export'"),
        ("a.jpg", "png", r"a\.jpg: a file of format 'png' ends in \.png"),
        ("a.npy", "overlay", r"format 'overlay' ends in \.png or \.jpg"),
    ],
)
def test_a_format_that_does_not_fit_writes_nothing(tmp_path, name, form, message):
    with pytest.raises(DataError, match=message):
        prediction().save(tmp_path / name, form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.npz", "a.png", "a.jpg"])
def test_a_file_in_place_of_the_folder_is_one_line(tmp_path, name):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be saved"):
        prediction().save(tmp_path / "file" / name)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_failed_write_leaves_the_earlier_file_and_no_other(tmp_path, monkeypatch):
    path = prediction().save(tmp_path / "a.npy")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(RunError, match=r"a\.npy: cannot be saved \(No space left"):
        prediction().save(path)
    assert [one.name for one in tmp_path.iterdir()] == ["a.npy"]
    np.testing.assert_array_equal(np.load(path), MASK)
