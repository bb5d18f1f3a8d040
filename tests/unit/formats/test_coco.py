import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools import coco
from tests.unit.formats.conftest import drawn_masks

from tag2mask.errors import DataError
from tag2mask.formats.base import MaskCollection
from tag2mask.formats.coco import COCO
from tag2mask.formats.collection import open_masks


@pytest.fixture
def exported(masks: MaskCollection, tmp_path: Path) -> Path:
    COCO().write(masks, tmp_path / "masks.json")
    return tmp_path / "masks.json"


def test_pycocotools_reads_every_mask_exactly(exported: Path) -> None:
    reader = coco.COCO(str(exported))
    assert len(reader.getImgIds()) == len(drawn_masks())
    names = {category["id"]: category["name"] for category in reader.loadCats(reader.getCatIds())}
    assert names == {1: "cat", 2: "two words"}
    for image in reader.loadImgs(reader.getImgIds()):
        expected = drawn_masks()[image["file_name"].removesuffix(".jpg")]
        assert (image["height"], image["width"]) == expected.shape
        mask = np.zeros(expected.shape, dtype=np.uint8)
        for note in reader.loadAnns(reader.getAnnIds(imgIds=image["id"])):
            inside = reader.annToMask(note).astype(bool)
            assert note["area"] == inside.sum()
            left, top, width, height = note["bbox"]
            rows, columns = np.nonzero(inside)
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
            mask[inside] = note["category_id"]
        assert np.array_equal(mask, expected)


def test_polygons_have_no_holes_or_parts_and_scores_are_kept(exported: Path) -> None:
    content = json.loads(exported.read_text("utf-8"))
    files = {image["id"]: image["file_name"] for image in content["images"]}
    kinds = {
        (files[note["image_id"]], note["category_id"]): type(note["segmentation"])
        for note in content["annotations"]
    }
    assert kinds == {
        ("lane1/ring.jpg", 1): dict,  # a hole
        ("lane2/parts.jpg", 1): list,
        ("lane2/parts.jpg", 2): dict,  # two parts
        ("square.jpg", 1): list,
        ("full.jpg", 2): list,
    }  # and none.jpg is listed without annotations
    assert {note["score"] for note in content["annotations"]} == {0.75, 0.5}
    assert {note["iscrowd"] for note in content["annotations"]} == {0}
    assert "background" in content["info"]["description"]


def test_ignored_pixels_become_background(write_masks: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_masks({"a": np.array([[1, 255, 0]], dtype=np.uint8)})
    COCO().write(open_masks(folder), tmp_path / "a.json")
    ((_, mask),) = COCO().read(tmp_path / "a.json").masks
    assert mask.tolist() == [[1, 0, 0]]


def test_masks_that_a_tool_exports_as_crowds_are_read(exported: Path) -> None:
    content = json.loads(exported.read_text("utf-8"))
    for note in content["annotations"]:
        note["iscrowd"] = 1
    exported.write_text(json.dumps(content), encoding="utf-8")
    for name, mask in COCO().read(exported).masks:
        assert np.array_equal(mask, drawn_masks()[name])


def test_annotation_without_a_mask_is_refused(exported: Path) -> None:
    content = json.loads(exported.read_text("utf-8"))
    content["annotations"][0]["segmentation"] = []
    exported.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="neither polygons nor run lengths"):
        COCO().read(exported)
