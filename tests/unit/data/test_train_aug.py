import sys

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.voc_set import (
    SIZES,
    TRAIN_AUG,
    official_mask,
    sbd_mask,
    write_list,
    write_mat,
    write_sbd,
    write_voc,
)

from tag2mask.data import train_aug
from tag2mask.data.train_aug import build_train_aug
from tag2mask.data.voc import VOC, VOCConfig, read_list
from tag2mask.errors import DataError, MissingExtraError


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path / "VOC2012")


@pytest.fixture
def sbd(tmp_path):
    pytest.importorskip("scipy.io")
    return write_sbd(tmp_path / "benchmark_RELEASE")


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_list_is_train_and_both_lists_of_sbd_without_val(voc, sbd):
    built = build_train_aug(voc, sbd, SIZES)
    assert built.names == TRAIN_AUG == read_list(voc, "train_aug")
    assert (built.official, built.converted, built.already) == (2, 2, 0)


def test_masks_are_official_where_there_are_and_else_those_of_sbd(voc, sbd):
    build_train_aug(voc, sbd, SIZES)
    folder = voc / "SegmentationClassAug"
    assert sorted(path.stem for path in folder.iterdir()) == list(TRAIN_AUG)
    for name in TRAIN_AUG:
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[3 * 15 : 3 * 16] == [192, 128, 128]
            expected = official_mask() if name.startswith("2007") else sbd_mask()
            np.testing.assert_array_equal(np.asarray(picture), expected)


def test_the_data_source_reads_what_was_built(voc, sbd):
    build_train_aug(voc, sbd, SIZES)
    source = VOC(VOCConfig(name="voc", root=voc, classes=("cat",)), "train")
    assert (source.names, source.has_masks) == (TRAIN_AUG, True)
    assert set(np.unique(source[0].mask)) == {0, 1, 255}
    assert set(np.unique(source[2].mask)) == {0, 255}  # a dog and a person, which are not learned


def test_a_second_call_changes_nothing(voc, sbd):
    build_train_aug(voc, sbd, SIZES)
    before = contents(voc)
    built = build_train_aug(voc, sbd, SIZES)
    assert (built.official, built.converted, built.already) == (0, 0, 4)
    assert contents(voc) == before


def test_an_interrupted_call_writes_no_list_and_resumes(voc, sbd, monkeypatch):
    def stop(mask, path):
        if path.stem == "2008_000015":
            raise KeyboardInterrupt
        save(mask, path)

    save = train_aug.save_mask
    monkeypatch.setattr(train_aug, "save_mask", stop)
    with pytest.raises(KeyboardInterrupt):
        build_train_aug(voc, sbd, SIZES)
    assert not (voc / "ImageSets" / "Segmentation" / "train_aug.txt").exists()
    monkeypatch.undo()
    built = build_train_aug(voc, sbd, SIZES)
    assert (built.already, built.official + built.converted) == (1, 3)
    assert read_list(voc, "train_aug") == TRAIN_AUG


def test_an_equal_list_of_two_columns_stays(voc, sbd):
    path = voc / "ImageSets" / "Segmentation" / "train_aug.txt"
    rows = [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in reversed(TRAIN_AUG)]
    write_list(path, rows)
    before = path.read_bytes()
    build_train_aug(voc, sbd, SIZES)
    assert path.read_bytes() == before


def _other_list(voc, sbd):
    write_list(voc / "ImageSets" / "Segmentation" / "train_aug.txt", (*TRAIN_AUG[1:], "2009_1"))


def _short_list(voc, sbd):
    write_list(sbd / "dataset" / "train.txt", ["2007_000032"])


def _lose_image(voc, sbd):
    (voc / "JPEGImages" / "2008_000008.jpg").unlink()


def _lose_official_mask(voc, sbd):
    (voc / "SegmentationClass" / "2007_000039.png").unlink()


def _lose_matrix(voc, sbd):
    (sbd / "dataset" / "cls" / "2008_000015.mat").unlink()


def _lose_val(voc, sbd):
    (voc / "ImageSets" / "Segmentation" / "val.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_other_list, r"differs from VOC and SBD: has 1 image: 2009_1; lacks 1 image: 2007_000032"),
        (_short_list, r"train_aug has 3 images, not 4\. SBD lists 1 in train\.txt and 1 in val"),
        (_lose_image, r"JPEGImages: 1 file missing: 2008_000008\.jpg"),
        (_lose_official_mask, r"SegmentationClass: 1 file missing: 2007_000039\.png"),
        (_lose_matrix, r"dataset: 1 file missing: 2008_000015\.mat"),
        (_lose_val, r"val\.txt: no such list"),
    ],
)
def test_problems_are_found_before_anything_is_written(voc, sbd, damage, words):
    damage(voc, sbd)
    before = contents(voc)
    with pytest.raises(DataError, match=words) as problem:
        build_train_aug(voc, sbd, SIZES)
    assert "\n" not in str(problem.value)
    assert contents(voc) == before
    assert not (voc / "SegmentationClassAug").exists()


def test_a_mask_of_another_size_than_its_image_is_rejected(voc, sbd):
    write_mat(sbd / "dataset" / "cls" / "2008_000008.mat", sbd_mask().T)
    with pytest.raises(DataError, match=r"the mask has 4x6 px, but its image has 6x4 px"):
        build_train_aug(voc, sbd, SIZES)
    assert not (voc / "SegmentationClassAug" / "2008_000008.png").exists()


def test_without_scipy_nothing_is_written(voc, sbd, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    before = contents(voc)
    with pytest.raises(MissingExtraError, match=r"tag2mask\[voc\]"):
        build_train_aug(voc, sbd, SIZES)
    assert contents(voc) == before
