import json

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.index import DatasetIndex, count, find_masks, name_images
from tag2mask.errors import DataError
from tag2mask.io.mask_folder import read_class_names


def _image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 3, 3), value, dtype=np.uint8)).save(path)
    return path


def _dataset_index(folder, names, **options):
    images = {name: folder / f"{name}.png" for name in names}
    return DatasetIndex("here", images, dict.fromkeys(names, ("cat",)), masks={}, **options)


def test_names_keep_folders_and_drop_the_suffix(tmp_path):
    for name in ("a.b.png", "lane1/cow.jpg", "masks/a.b.png"):
        _image(tmp_path / name)
    named, problems = name_images(tmp_path, leave_out=tmp_path / "masks")
    assert named == {"a.b": tmp_path / "a.b.png", "lane1/cow": tmp_path / "lane1/cow.jpg"}
    assert problems == []


def test_images_that_would_share_a_mask_name_are_a_problem(tmp_path):
    for name in ("a.jpg", "a.png", "b/a.jpg"):
        _image(tmp_path / name)
    named, problems = name_images(tmp_path)
    assert list(named) == ["a", "b/a"]
    assert len(problems) == 1
    assert "a.jpg and a.png" in problems[0]


def test_masks_are_found_by_the_same_names(tmp_path):
    for name in ("a.png", "b/c.png", "b/.hidden.png", "notes.jpg"):
        _image(tmp_path / name)
    assert find_masks(tmp_path) == {"a": tmp_path / "a.png", "b/c": tmp_path / "b/c.png"}
    assert find_masks(tmp_path / "nowhere") == {}


def test_class_list_is_read_and_damage_is_rejected(tmp_path):
    assert read_class_names(tmp_path) == ()
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"classes": ["cat", "dog"], "ignore": 255}))
    assert read_class_names(tmp_path) == ("cat", "dog")
    for text in ("{", "[]", '{"classes": [1]}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"classes\.json"):
            read_class_names(tmp_path)


def test_unreadable_images_are_set_aside_or_rejected(tmp_path):
    _image(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("text")
    dataset_index = _dataset_index(tmp_path, ["a", "b"])
    assert dataset_index.readable(["a", "b"], strict=False) == (("a",), ("b",))
    with pytest.raises(DataError, match=r"here: 1 unreadable image: .*b\.png \("):
        dataset_index.readable(["a", "b"], strict=True)
    with pytest.raises(DataError, match=r"b\.png"):
        dataset_index.readable(["b"], strict=False)


def test_sample_has_its_mask_in_the_chosen_numbering(tmp_path):
    _image(tmp_path / "a.png", 9)
    Image.fromarray(np.array([[0, 1, 2], [2, 3, 255]], dtype=np.uint8)).save(tmp_path / "m.png")
    dataset_index = DatasetIndex(
        "here",
        images={"a": tmp_path / "a.png"},
        tags={"a": ("cow",)},
        masks={"a": tmp_path / "m.png"},
        mask_classes=("cat", "cow", "dog"),
    )
    tags = np.array([0, 1], dtype=np.uint8)
    sample = dataset_index.sample("a", tags, ("dog", "cow"), with_mask=True)
    np.testing.assert_array_equal(sample.mask, [[0, 255, 2], [2, 1, 255]])
    assert (sample.name, sample.tags.tolist(), sample.image.max()) == ("a", [0, 1], 9)
    assert dataset_index.sample("a", tags, ("dog", "cow"), with_mask=False).mask is None


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(DataError, match="first\nsecond"):
        _dataset_index(tmp_path, ["a"], problems=("first", "second")).reject_problems()
    _dataset_index(tmp_path, ["a"]).reject_problems()


def test_counts_read_well():
    assert [count(1, "image"), count(3031, "image")] == ["1 image", "3,031 images"]
