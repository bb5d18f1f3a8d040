import json
import os

import numpy as np
import pytest

from tag2mask.app.corrections import CorrectedMasks
from tag2mask.app.refusals import MaskExistsError, RefusedError
from tag2mask.data.index import find_masks
from tag2mask.errors import DataError, RunError
from tag2mask.io.masks import read_mask, save_mask

CLASSES = ("cat", "dog")
ONE = np.array([[0, 1], [2, 255]], dtype=np.uint8)
OTHER = np.array([[1, 1], [1, 1]], dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "masks"


@pytest.fixture
def masks(folder):
    return CorrectedMasks(folder, CLASSES, "run")


def test_a_saved_mask_is_read_back_and_described(masks, folder):
    version = masks.save("lane1/a", ONE, None, confirmed=False)
    np.testing.assert_array_equal(read_mask(folder / "lane1" / "a.png", 2), ONE)
    assert json.loads((folder / "classes.json").read_text("utf-8"))["classes"] == list(CLASSES)
    saved = masks.read("lane1/a", (2, 2))
    np.testing.assert_array_equal(saved.mask, ONE)
    assert (saved.version, saved.is_own) == (version, True)
    assert masks.has("lane1/a")
    assert not masks.has("lane1/b")
    assert masks.read("lane1/b", (2, 2)) is None


def test_saving_again_needs_no_question(masks, folder):
    version = masks.save("a", ONE, None, confirmed=False)
    masks.save("a", OTHER, version, confirmed=False)
    np.testing.assert_array_equal(read_mask(folder / "a.png", 2), OTHER)
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "classes.json"]


def test_a_mask_of_the_user_is_replaced_only_with_agreement_and_kept(folder):
    folder.mkdir()
    (folder / "classes.json").write_text('{"classes": ["cat", "dog"]}', encoding="utf-8")
    save_mask(OTHER, folder / "a.png")
    masks = CorrectedMasks(folder, CLASSES, "run")
    found = masks.read("a", (2, 2))
    assert not found.is_own
    with pytest.raises(MaskExistsError, match="not made on this page"):
        masks.save("a", ONE, found.version, confirmed=False)
    np.testing.assert_array_equal(read_mask(folder / "a.png", 2), OTHER)
    masks.save("a", ONE, found.version, confirmed=True)
    np.testing.assert_array_equal(read_mask(folder / "a.png", 2), ONE)
    (kept,) = folder.glob(".a.before-*.png")
    np.testing.assert_array_equal(read_mask(kept, 2), OTHER)
    assert find_masks(folder).keys() == {"a"}


def test_two_people_do_not_overwrite_each_other_without_a_word(masks, folder):
    masks.save("a", ONE, None, confirmed=False)
    with pytest.raises(MaskExistsError, match="somebody else"):
        masks.save("a", OTHER, None, confirmed=False)
    np.testing.assert_array_equal(read_mask(folder / "a.png", 2), ONE)
    masks.save("a", OTHER, None, confirmed=True)
    assert len(list(folder.glob(".a.before-*.png"))) == 1


def test_classes_keep_their_values_in_an_existing_folder(folder):
    folder.mkdir()
    (folder / "classes.json").write_text('{"classes": ["bird", "dog"]}', encoding="utf-8")
    masks = CorrectedMasks(folder, CLASSES, "run")
    masks.save("a", ONE, None, confirmed=False)
    names = json.loads((folder / "classes.json").read_text("utf-8"))["classes"]
    assert names == ["bird", "dog", "cat"]
    np.testing.assert_array_equal(read_mask(folder / "a.png", 3), [[0, 3], [2, 255]])
    np.testing.assert_array_equal(masks.read("a", (2, 2)).mask, ONE)


def test_a_class_that_the_run_does_not_know_is_shown_as_ignored(folder):
    folder.mkdir()
    (folder / "classes.json").write_text('{"classes": ["bird"]}', encoding="utf-8")
    save_mask(OTHER, folder / "a.png")
    masks = CorrectedMasks(folder, CLASSES, "run")
    assert (masks.read("a", (2, 2)).mask == 255).all()


def test_masks_without_classes_are_left_alone(folder):
    folder.mkdir()
    save_mask(OTHER, folder / "a.png")
    with pytest.raises(RunError, match=r"no classes.json"):
        CorrectedMasks(folder, CLASSES, "run")


def test_a_name_cannot_leave_the_folder(masks, folder):
    with pytest.raises(RefusedError, match="leaves the folder"):
        masks.save("../outside", ONE, None, confirmed=True)
    assert not folder.parent.joinpath("outside.png").exists()


def test_a_mask_of_another_size_is_an_error(masks):
    masks.save("a", ONE, None, confirmed=False)
    with pytest.raises(DataError, match="2x2"):
        masks.read("a", (3, 2))


def test_a_full_disk_leaves_the_old_mask(masks, folder, monkeypatch):
    version = masks.save("a", ONE, None, confirmed=False)

    def full(mask, path):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("tag2mask.app.corrections.save_mask", full)
    with pytest.raises(RunError, match=r"intact.*Free space"):
        masks.save("a", OTHER, version, confirmed=False)
    np.testing.assert_array_equal(read_mask(folder / "a.png", 2), ONE)
