import json

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.survey import Survey, count, find_masks, name_photos, read_class_list
from tag2mask.errors import DataError


def _photo(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 3, 3), value, dtype=np.uint8)).save(path)
    return path


def _survey(folder, names, **options):
    photos = {name: folder / f"{name}.png" for name in names}
    return Survey("here", photos, dict.fromkeys(names, ("cat",)), masks={}, **options)


def test_names_keep_folders_and_drop_the_suffix(tmp_path):
    for name in ("a.b.png", "lane1/cow.jpg", "masks/a.b.png"):
        _photo(tmp_path / name)
    named, faults = name_photos(tmp_path, leave_out=tmp_path / "masks")
    assert named == {"a.b": tmp_path / "a.b.png", "lane1/cow": tmp_path / "lane1/cow.jpg"}
    assert faults == []


def test_photos_that_would_share_a_mask_name_are_a_fault(tmp_path):
    for name in ("a.jpg", "a.png", "b/a.jpg"):
        _photo(tmp_path / name)
    named, faults = name_photos(tmp_path)
    assert list(named) == ["a", "b/a"]
    assert len(faults) == 1
    assert "a.jpg and a.png" in faults[0]


def test_masks_are_found_by_the_same_names(tmp_path):
    for name in ("a.png", "b/c.png", "b/.hidden.png", "notes.jpg"):
        _photo(tmp_path / name)
    assert find_masks(tmp_path) == {"a": tmp_path / "a.png", "b/c": tmp_path / "b/c.png"}
    assert find_masks(tmp_path / "nowhere") == {}


def test_class_list_is_read_and_damage_is_refused(tmp_path):
    assert read_class_list(tmp_path) == ()
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"classes": ["cat", "dog"], "ignore": 255}))
    assert read_class_list(tmp_path) == ("cat", "dog")
    for text in ("{", "[]", '{"classes": [1]}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"classes\.json"):
            read_class_list(tmp_path)


def test_unreadable_photos_are_set_aside_or_refused(tmp_path):
    _photo(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("text")
    survey = _survey(tmp_path, ["a", "b"])
    assert survey.readable(["a", "b"], strict=False) == (("a",), ("b",))
    with pytest.raises(DataError, match=r"here: 1 unreadable photo: .*b\.png \("):
        survey.readable(["a", "b"], strict=True)
    with pytest.raises(DataError, match=r"b\.png"):
        survey.readable(["b"], strict=False)


def test_sample_has_its_mask_in_the_chosen_numbering(tmp_path):
    _photo(tmp_path / "a.png", 9)
    Image.fromarray(np.array([[0, 1, 2], [2, 3, 255]], dtype=np.uint8)).save(tmp_path / "m.png")
    survey = Survey(
        "here",
        photos={"a": tmp_path / "a.png"},
        tags={"a": ("cow",)},
        masks={"a": tmp_path / "m.png"},
        mask_classes=("cat", "cow", "dog"),
    )
    tags = np.array([0, 1], dtype=np.uint8)
    sample = survey.sample("a", tags, ("dog", "cow"), with_mask=True)
    np.testing.assert_array_equal(sample.mask, [[0, 255, 2], [2, 1, 255]])
    assert (sample.name, sample.tags.tolist(), sample.image.max()) == ("a", [0, 1], 9)
    assert survey.sample("a", tags, ("dog", "cow"), with_mask=False).mask is None


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(DataError, match="first\nsecond"):
        _survey(tmp_path, ["a"], faults=("first", "second")).refuse_faults()
    _survey(tmp_path, ["a"]).refuse_faults()


def test_counts_read_well():
    assert [count(1, "photo"), count(3031, "photo")] == ["1 photo", "3,031 photos"]
