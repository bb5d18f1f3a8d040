from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.inference.inputs import (
    decode_image,
    folder_images,
    is_folder,
    tag_names,
    tag_row,
    tags_of_list,
)


def save_image(path: Path, brightness: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.new("RGB", (6, 4), (brightness,) * 3).save(path)
    return path


def test_files_give_their_name_and_arrays_none(tmp_path):
    path = save_image(tmp_path / "cow.png", 9)
    with PILImage.open(path) as opened:
        for given in (path, str(path), opened):
            name, image = decode_image(given)
            assert (name, image.shape, int(image.max())) == ("cow", (4, 6, 3), 9)
    assert decode_image(np.zeros((4, 6), np.uint8)).name == ""
    assert decode_image(PILImage.new("L", (6, 4))).name == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://example.org/cow.jpg", "is a web address; download the image"),
        ("missing.jpg", "missing.jpg: no such file"),
        (None, "a NoneType is no image; give a path"),
        (b"\x89PNG", "a bytes is no image"),
        ((path for path in ("a.png",)), "a generator is no image.*or a list"),
    ],
)
def test_what_is_no_image_is_refused(given, message):
    with pytest.raises(DataError, match=message):
        decode_image(given)


def test_a_folder_is_read_one_image_at_a_time(tmp_path):
    save_image(tmp_path / "lane1" / "b.png", 1)
    save_image(tmp_path / "lane1" / "a.png", 2)
    (tmp_path / "z.png").write_text("broken", encoding="utf-8")
    images = folder_images(tmp_path)
    assert [next(images).name, next(images).name] == ["lane1/a", "lane1/b"]
    with pytest.raises(DataError, match=r"z\.png: cannot be read as an image"):
        next(images)


def test_an_empty_folder_is_refused_at_once(tmp_path):
    assert is_folder(str(tmp_path))
    with pytest.raises(DataError, match="no images in this folder"):
        folder_images(tmp_path)


def test_text_is_one_tag():
    assert tag_names("dog") == ("dog",)
    assert tag_names(["dog", "cat"]) == ("dog", "cat")
    assert tag_names([]) == ()
    with pytest.raises(DataError, match="a tag is text, got 3 of type int"):
        tag_names([3])


def test_a_list_of_images_has_one_entry_of_tags_for_each():
    assert tags_of_list("dog", 2) == ["dog", "dog"]
    assert tags_of_list(["dog", ["cat", "cow"]], 2) == ["dog", ["cat", "cow"]]
    with pytest.raises(DataError, match="3 images, but tags of 2; give one entry per image"):
        tags_of_list(["dog", "cat"], 3)


def test_a_row_marks_the_tags():
    classes = ("cat", "cow", "dog")
    assert tag_row(["dog", "cat"], classes).tolist() == [1, 0, 1]
    assert tag_row([], classes).tolist() == [0, 0, 0]
    with pytest.raises(DataError, match=r"unknown tag 'cwo'\. Did you mean 'cow'\?"):
        tag_row(["cwo"], classes)


def test_every_form_of_a_16_bit_image_gets_the_given_range(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 4000]], dtype=np.uint16)
    path = tmp_path / "deep.png"
    PILImage.fromarray(values).save(path)
    for form in (path, values, PILImage.open(path)):
        assert decode_image(form, (0, 2000)).image[0, :, 0].tolist() == [0, 128, 255]
        assert decode_image(form).image[0, :, 0].tolist() == [0, 64, 255]
