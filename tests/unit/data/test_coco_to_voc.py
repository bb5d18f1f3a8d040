import json
import os

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.coco_file import annotation, document, square, usual, write_data

from tag2mask.data.coco import COCO, COCOConfig
from tag2mask.data.coco_to_voc import convert_coco, part_name
from tag2mask.data.instances import read_instances
from tag2mask.data.voc import VOC, VOCConfig
from tag2mask.errors import DataError, RunError
from tag2mask.io.mask_folder import read_class_names

NAMES = ("COCO_train2014_000000000009", "COCO_train2014_000000000025")


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "coco")


def _convert(data, out, **options):
    return convert_coco(data, data.parents[1] / "train2014", out, workers=2, **options)


def test_what_is_written_is_what_the_source_reads(data, tmp_path):
    out, seen = tmp_path / "out", []
    done = _convert(data, out, tell=lambda *numbers: seen.append(numbers))
    assert (done.part, done.written, done.already, done.linked) == ("train", 2, 0, True)
    assert seen == [(2, 2)]
    with Image.open(out / "SegmentationClass" / "train" / f"{NAMES[0]}.png") as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[3:6] == [128, 0, 0]
        np.testing.assert_array_equal(np.asarray(picture), read_instances(data).mask(0))
    assert (out / "tags.csv").read_text().splitlines() == [
        "image,tags",
        f"train/{NAMES[0]}.jpg,person;dog;toothbrush",
        f"train/{NAMES[1]}.jpg,person;dog",
    ]
    assert read_class_names(out / "SegmentationClass" / "train") == ("person", "dog", "toothbrush")
    voc = VOC(VOCConfig(name="voc", root=out, split="train"), "train")
    coco = COCO(COCOConfig(name="coco", root=data.parents[1]), "train")
    layout = COCO(COCOConfig(name="coco", root=out), "train")
    assert layout.names == coco.names
    assert voc.names == tuple(f"train/{name}" for name in coco.names)
    for other in (voc, layout):
        assert other.class_names == coco.class_names
        np.testing.assert_array_equal(other.tags, coco.tags)
        for index in range(2):
            np.testing.assert_array_equal(other[index].mask, coco[index].mask)
            np.testing.assert_array_equal(other[index].image, coco[index].image)


def test_a_second_start_writes_only_what_is_missing(data, tmp_path):
    out = tmp_path / "out"
    _convert(data, out)
    masks = out / "SegmentationClass" / "train"
    (masks / f"{NAMES[0]}.png").unlink()
    (masks / f"{NAMES[1]}.png").write_bytes(b"corrected by hand")
    tags = (out / "tags.csv").read_text().replace("person;dog\n", "dog\n")
    (out / "tags.csv").write_text(tags)
    done = _convert(data, out)
    assert (done.written, done.already) == (1, 1)
    assert (masks / f"{NAMES[1]}.png").read_bytes() == b"corrected by hand"
    assert (out / "tags.csv").read_text() == tags
    assert not [path for path in out.rglob("*") if path.suffix in {".part", ".tmp"}]


def test_parts_share_a_folder(data, tmp_path):
    out = tmp_path / "out"
    _convert(data, out)
    held = document([annotation(1, 9, 1, [square(0, 0, 2, 2)])], year="val2014")
    other = write_data(tmp_path / "coco", held, split="val2014")
    done = convert_coco(other, tmp_path / "coco" / "val2014", out, keep_empty=True)
    assert (done.part, done.written) == ("val", 3)
    assert len((out / "tags.csv").read_text().splitlines()) == 1 + 2 + 3
    lists = out / "ImageSets" / "Segmentation"
    assert [len(path.read_text().split()) for path in sorted(lists.iterdir())] == [2, 3]
    found = VOC(VOCConfig(name="voc", root=out, split="train", val_split="val"), "val")
    assert found.names[0] == "val/COCO_val2014_000000000009"


@pytest.mark.parametrize(
    "place",
    ["tags.csv", "ImageSets/Segmentation/train.txt", "SegmentationClass/train/a", "classes.json"],
)
def test_files_of_the_user_stay_as_they_are(data, tmp_path, place):
    path = tmp_path / "out" / place
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(RunError, match="choose another folder") as problem:
        _convert(data, tmp_path / "out")
    assert "\n" not in str(problem.value)
    assert [found for found in (tmp_path / "out").rglob("*") if found.is_file()] == [path]
    assert path.read_text() == "precious"


def test_another_file_is_another_part(data, tmp_path):
    out = tmp_path / "out"
    _convert(data, out)
    with pytest.raises(RunError, match="part 'train' is of another file or keep_empty"):
        _convert(data, out, keep_empty=True)
    found = usual()
    found["categories"][0]["name"] = "comb"
    data.write_text(json.dumps(found))
    os.utime(data, ns=(1, 1))
    with pytest.raises(RunError, match="has other classes"):
        _convert(data, out, part="new")


def test_images_in_place_are_kept(data, tmp_path):
    """The layout of published code, images already in JPEGImages/train."""
    place = tmp_path / "coco" / "JPEGImages" / "train"
    place.parent.mkdir()
    (tmp_path / "coco" / "train2014").rename(place)
    done = convert_coco(data, place, tmp_path / "coco")
    assert done.linked
    assert not place.is_symlink()
    assert len(list(place.iterdir())) == 3


def test_boxes_alone_cannot_be_painted(tmp_path):
    data = write_data(tmp_path / "coco", document([annotation(1, 9, 1, [])]))
    with pytest.raises(DataError, match="without outlines"):
        _convert(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("instances_train2014.json", "train"),
        ("instances_val2017.json", "val"),
        ("_annotations.coco.json", "annotations"),
        ("instances_default.json", "default"),
        ("2014.json", "2014"),
    ],
)
def test_part_is_named_after_its_file(tmp_path, file, name):
    assert part_name(tmp_path / file) == name
