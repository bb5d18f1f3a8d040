import pytest
from tests.unit.data.coco_file import annotation, document, square, usual, write_data
from tests.unit.data.voc_set import SIZES, TRAIN_AUG, official_mask, write_list, write_voc

from tag2mask.data import published_sets
from tag2mask.data.published_sets import COCO_SIZES, VOC_SIZES, check_coco, check_voc
from tag2mask.errors import DataError
from tag2mask.io.masks import save_mask

COUNTS = {"train2014": 2, "val2014": 2}


@pytest.fixture
def voc(tmp_path):
    """VOC with a list of two columns and all masks."""
    root = write_voc(tmp_path)
    _list(root, TRAIN_AUG)
    (root / "SegmentationClassAug").mkdir()
    for name in TRAIN_AUG:
        save_mask(official_mask(), root / "SegmentationClassAug" / f"{name}.png")
    return root


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """COCO with three classes and two annotated images in each split."""
    monkeypatch.setattr(published_sets, "COCO_CLASSES", ("person", "dog", "toothbrush"))
    for split in COUNTS:
        write_data(tmp_path, split=split)
    return tmp_path


def _list(root, names, name="train_aug"):
    rows = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in names]
    write_list(root / "ImageSets" / "Segmentation" / f"{name}.txt", rows)


def test_published_sizes_are_those_of_the_papers():
    assert VOC_SIZES == {"train": 1464, "val": 1449, "train_aug": 10582}
    assert COCO_SIZES == {"train2014": 82081, "val2014": 40137}


def test_a_complete_voc_passes(voc):
    report = check_voc(voc, SIZES)
    assert report.sizes == SIZES
    assert report.masks == {"SegmentationClass": 3, "SegmentationClassAug": 4}
    assert report.warnings == ()


def test_masks_of_train_aug_are_optional(voc):
    (voc / "SegmentationClassAug" / "2008_000008.png").unlink()
    report = check_voc(voc, SIZES)
    (warning,) = report.warnings
    assert "masks for 3 of 4 images" in warning


def _drop_list(root):
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").unlink()


def _add_val(root):
    _list(root, [*TRAIN_AUG[:3], "2007_000033"])


def _drop_train(root):
    _list(root, [*TRAIN_AUG[1:], "2009_000001"])


def _shorten(root):
    _list(root, TRAIN_AUG[:3])


def _drop_mask(root):
    (root / "SegmentationClass" / "2007_000033.png").unlink()


def _drop_image(root):
    (root / "JPEGImages" / "2008_000015.jpg").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_drop_list, r"train_aug\.txt: is missing; VOC does not contain it\. Unpack http.* --sbd"),
        (_add_val, r"train_aug\.txt: 1 image of val: 2007_000033; scores on val would be invalid"),
        (_drop_train, r"train_aug\.txt: lacks 1 image of train: 2007_000032"),
        (_shorten, r"train_aug has 3 images, the published scores use 4"),
        (_drop_mask, r"SegmentationClass: 1 mask of val missing: 2007_000033"),
        (_drop_image, r"1 image not in JPEGImages: 2008_000015"),
    ],
)
def test_problems_of_voc_are_one_line_each(voc, damage, words):
    damage(voc)
    with pytest.raises(DataError, match=words):
        check_voc(voc, SIZES)


def test_a_complete_coco_passes(coco):
    report = check_coco(coco, COUNTS)
    assert report.sizes == report.masks == COUNTS
    assert report.warnings == ()


def test_odd_outlines_of_coco_are_warnings(coco):
    found = usual()
    found["annotations"] += [
        annotation(600, 9, 1, [square(9, 0, 12, 4)]),
        annotation(601, 9, 1, [square(800, 0, 801, 4)]),
    ]
    write_data(coco, found)
    report = check_coco(coco, COUNTS)
    assert report.sizes == COUNTS
    (warning,) = report.warnings
    assert "2 outlines outside the image" in warning
    assert "annotation 601 (image 9)" in warning


def test_all_problems_of_coco_are_reported_together(coco):
    write_data(coco, document([annotation(1, 9, 1, [square(0, 0, 2, 2)])]))
    next((coco / "val2014").glob("*25.jpg")).unlink()
    with pytest.raises(DataError) as problem:
        check_coco(coco, COUNTS)
    lines = str(problem.value).splitlines()
    assert any("train2014 has 1 image, the published scores use 2" in line for line in lines)
    assert any("1 image not in" in line for line in lines)


def test_other_classes_are_rejected(coco, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"has 3 classes that are not COCO's 80 in their order"):
        check_coco(coco, COUNTS)
