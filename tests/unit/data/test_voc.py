from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.voc import (
    VOC,
    VOC_CLASSES,
    VOCConfig,
    listed_images,
    read_list,
    voc_lists,
    voc_root,
)
from tag2mask.errors import DataError, NothingHeldOutError
from tag2mask.io.masks import save_mask

ANIMALS = ("cat", "cow", "dog", "horse", "person", "sheep")


@pytest.fixture
def data(tmp_path):
    """Write three images in VOC layout: a cat, a dog with a person, no class; two with masks."""
    for folder in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for index, name in enumerate(("2007_01", "2007_02", "2007_03")):
        image = Image.fromarray(np.full((4, 6, 3), 60 * index, dtype=np.uint8))
        image.save(tmp_path / "JPEGImages" / f"{name}.jpg")
    for name, objects in {"2007_01": ["cat"], "2007_02": ["dog", "person"], "2007_03": []}.items():
        body = "".join(f"<object><name>{name}</name></object>" for name in objects)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{body}</annotation>")
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[0] = (0, 8, 12, 15, 20, 255)  # background, cat, dog, person, tvmonitor, ignore
    for name in ("2007_01", "2007_02"):
        save_mask(mask, tmp_path / "SegmentationClass" / f"{name}.png")
    _write_list(tmp_path, "train_aug", ["2007_01", "2007_02", "2007_03"])
    _write_list(tmp_path, "train", ["2007_01", "2007_02"])
    return tmp_path


def _write_list(root, name, names):
    (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(names) + "\n")


def _open(root, part="train", **options):
    return VOC(VOCConfig(name="voc", root=root, **options), part)


def test_class_values_equal_those_of_the_official_masks():
    assert len(VOC_CLASSES) == 20
    assert [VOC_CLASSES[value - 1] for value in (1, 8, 12, 15, 20)] == [
        "aeroplane", "cat", "dog", "person", "tvmonitor",
    ]  # fmt: skip


def test_tags_come_from_annotations_and_masks_are_optional(data):
    source = _open(data)
    assert source.class_names == ("cat", "dog", "person")
    np.testing.assert_array_equal(source.tags, [[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    assert not source.has_masks
    assert list(source.mask_indices) == [0, 1]
    assert source[1].mask is not None
    assert source[2].mask is None
    assert abs(int(source[1].image.mean()) - 60) <= 1


def test_a_tag_file_takes_precedence_over_annotations(data):
    (data / "tags.csv").write_text("image,tags\n2007_01.jpg,cow\n2007_02,dog\n2007_03.jpg,\n")
    assert _open(data).class_names == ("cow", "dog")


def test_chosen_classes_are_renumbered_and_others_ignored(data):
    source = _open(data, "train.txt", classes=("person", "cat"))
    assert source.has_masks
    np.testing.assert_array_equal(source.tags, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(source[0].mask[0], [0, 2, 255, 1, 255, 255])
    source.reads_masks = False
    assert source[0].mask is None


def test_parts_are_the_lists_of_the_recipe(data):
    options = {"split": "train_aug", "val_split": "train"}
    assert len(_open(data, "train", **options)) == 3
    assert len(_open(data, "val", **options)) == 2
    assert len(_open(data, "train.txt", **options)) == 2
    assert len(_open(data, "train_aug", **options)) == 3
    with pytest.raises(NothingHeldOutError, match=r"set data\.val_split"):
        _open(data, "val")


def test_a_held_out_list_has_the_classes_of_the_training_list(data):
    _write_list(data, "small", ["2007_01"])
    source = _open(data, "val", val_split="small")
    assert source.class_names == ("cat", "dog", "person")
    np.testing.assert_array_equal(source.tags, [[1, 0, 0]])


def test_augmented_masks_are_used_if_official_ones_do_not_cover_the_list(data):
    (data / "SegmentationClassAug").mkdir()
    for name in ("2007_01", "2007_02", "2007_03"):
        gray = Image.fromarray(np.full((4, 6), 12, dtype=np.uint8))
        gray.save(data / "SegmentationClassAug" / f"{name}.png")
    assert _open(data)[2].mask.max() == 2
    assert _open(data)[0].mask.min() == 2
    assert _open(data, "train.txt")[0].mask.min() == 0  # the official one


def test_classes_json_defines_other_classes(data):
    (data / "classes.json").write_text('{"classes": ["apple", "cat", "dog", "person"]}')
    with pytest.raises(DataError, match=r"2007_01\.png: pixel value 8 is no class .*1\.\.4"):
        _open(data, "train.txt")[0]
    save_mask(np.full((4, 6), 2, dtype=np.uint8), data / "SegmentationClass" / "2007_01.png")
    np.testing.assert_array_equal(np.unique(_open(data, "train.txt")[0].mask), [1])


def test_root_may_be_a_parent_folder(data):
    (data / "up" / "VOCdevkit").mkdir(parents=True)
    (data / "up" / "VOCdevkit" / "VOC2012").symlink_to(data)
    assert voc_root(data / "up") == data / "up" / "VOCdevkit" / "VOC2012"
    assert voc_lists(voc_root(data / "up")) == ["train", "train_aug"]


def test_a_list_may_be_a_file_elsewhere(data, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "few.txt").write_text("2007_02\n", encoding="utf-8")
    for name in (f"{tmp_path}/lists/few.txt", f"{tmp_path}/lists/few"):
        assert VOC(VOCConfig(name="voc", root=data), name).names == ("2007_02",)
    with pytest.raises(DataError, match=r"lists/fewer\.txt: no such list"):
        read_list(data, f"{tmp_path}/lists/fewer.txt")

    path = data / "ImageSets" / "Segmentation" / "cat_train.txt"
    path.write_text("2007_01  1\n\n2007_02 -1\n", encoding="utf-8-sig")
    assert read_list(data, "cat_train") == ("2007_01", "2007_02")


def test_lists_of_two_columns_name_images_by_the_first(data):
    """As PSA, SEAM and AEFT ship them."""
    rows = [
        f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png"
        for name in ("2007_02", "2007_01")
    ]
    _write_list(data, "train_aug", rows)
    assert read_list(data, "train_aug") == ("2007_02", "2007_01")
    assert _open(data).names == ("2007_02", "2007_01")
    assert listed_images(["VOC2012/JPEGImages/lane.1/a.b.jpg x", "", " lane.1/a.b "]) == [
        "lane.1/a.b",
        "lane.1/a.b",
    ]


def _drop_image(root):
    (root / "JPEGImages" / "2007_02.jpg").unlink()


def _drop_annotation(root):
    (root / "Annotations" / "2007_02.xml").unlink()


def _add_same_name(root):
    Image.new("RGB", (6, 4)).save(root / "JPEGImages" / "2007_02.png")


def _repeat_line(root):
    _write_list(root, "train_aug", ["2007_01", "2007_02", "2007_01"])


def _empty_list(root):
    _write_list(root, "train_aug", [])


def _lack_row(root):
    (root / "tags.csv").write_text("image,tags\n2007_01.jpg,cat\n")


def _mistype_tag(root):
    (root / "tags.csv").write_text("image,tags\n2007_01,cat\n2007_02,hrose\n2007_03,\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_image, "train_aug: 1 image not in JPEGImages: 2007_02"),
        (_drop_annotation, r"2007_02\.xml: cannot be read"),
        (_add_same_name, r"2007_02\.jpg and 2007_02\.png"),
        (_repeat_line, "images listed twice: 2007_01"),
        (_empty_list, "the list is empty"),
        (_lack_row, r"2 images without row: 2007_02, 2007_03.*'2007_02\.jpg,'"),
        (_mistype_tag, "unknown class 'hrose' of 2007_02. Did you mean 'horse'"),
    ],
)
def test_invalid_files_are_rejected_in_one_line(data, damage, message):
    damage(data)
    with pytest.raises(DataError, match=message) as problem:
        _open(data)
    assert "\n" not in str(problem.value)


def test_invalid_settings_are_rejected(data):
    with pytest.raises(DataError, match=r"Did you mean 'train_aug'.* Known: train, train_aug"):
        _open(data, split="trainaug")
    with pytest.raises(DataError, match=r"unknown class 'cta'.*Did you mean 'cat'"):
        _open(data, classes=("cta",))
    with pytest.raises(DataError, match="no image has the tag cow"):
        _open(data, classes=("cat", "cow"))
    with pytest.raises(DataError, match=r"data\.root is not set"):
        _open(None)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        _open(data / "nowhere")
    with pytest.raises(DataError, match="no folder JPEGImages"):
        _open(data / "Annotations")


def test_unreadable_images_are_skipped_and_recorded_or_rejected(data):
    path = data / "JPEGImages" / "2007_03.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    source = _open(data)
    assert (source.names, source.skipped) == (("2007_01", "2007_02"), ("2007_03",))
    with pytest.raises(DataError, match=r"1 unreadable image: .*2007_03\.jpg \("):
        _open(data, strict=True)


@pytest.mark.real
def test_voc_animals_has_its_lists_and_masks(voc_animals):
    options = {"classes": ANIMALS}
    train = _open(voc_animals, **options)
    masked = _open(voc_animals, "train.txt", **options)
    held_out = _open(voc_animals, "devval", **options)
    assert (len(train), len(masked), len(held_out)) == (3031, 337, 100)
    assert (train.has_masks, masked.has_masks, held_out.has_masks) == (False, True, True)
    assert set(masked.names) <= set(train.names)
    assert not set(held_out.names) & set(train.names)
    assert train.skipped == ()


@pytest.mark.real
def test_voc_animals_masks_agree_with_the_tags(voc_animals):
    source = _open(voc_animals, "devval", classes=ANIMALS)
    for index in range(len(source)):
        sample = source[index]
        values = set(np.unique(sample.mask).tolist()) - {0, 255}
        assert sample.mask.shape == sample.image.shape[:2]
        assert values <= set((np.flatnonzero(sample.tags) + 1).tolist())


@pytest.mark.real
def test_the_list_of_100_animals_is_evenly_spaced(voc_animals):
    table = Path(__file__).parents[3] / "benchmarks" / "tables" / "animals_100.txt"
    names = read_list(voc_animals, "train")
    assert read_list(voc_animals, str(table)) == tuple(
        names[index * len(names) // 100] for index in range(100)
    )
