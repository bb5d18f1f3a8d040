"""Roboflow's supervision reads COCO run lengths exactly, polygons to one pixel (it fills with
OpenCV, which includes the boundary)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.formats.conftest import differs_by_one_px_at_most, scene_masks

supervision = pytest.importorskip("supervision")
pytestmark = pytest.mark.formats
Export = Callable[[str, str], Path]


def name_of(path: str, root: Path) -> str:
    return Path(path).relative_to(root).with_suffix("").as_posix()


def test_coco_masks_scores_and_empty_images(export: Export, tmp_path: Path) -> None:
    out = export("coco", "masks.json")
    dataset = supervision.DetectionDataset.from_coco(
        str(tmp_path / "images"), str(out), force_masks=True
    )
    assert dataset.classes == ["cat", "two words"]
    found = {name_of(path, tmp_path / "images"): found for path, _, found in dataset}
    assert found.keys() == scene_masks().keys()
    assert len(found["none"]) == 0
    exact = 0
    for name, mask in scene_masks().items():
        assert len(found[name]) == len(set(np.unique(mask)) - {0})  # one object per class
        for row in range(len(found[name])):
            inside, truth = found[name].mask[row], mask == found[name].class_id[row] + 1
            assert differs_by_one_px_at_most(inside, truth)
            exact += bool((inside == truth).all())
    assert exact >= 6  # those with run lengths


def test_yolo_polygons(export: Export) -> None:
    out = export("yolo_seg", "dataset")
    for folder in ("", "big", "lane1", "lane2"):
        dataset = supervision.DetectionDataset.from_yolo(
            str(out / "images" / "train" / folder),
            str(out / "labels" / "train" / folder),
            str(out / "data.yaml"),
            force_masks=True,
        )
        assert dataset.classes == ["cat", "two words"]
        assert len(dataset) > 0
        for path, _, found in dataset:
            mask = scene_masks()[name_of(path, out / "images" / "train")]
            for value in (1, 2):
                drawn = np.zeros(mask.shape, dtype=bool)
                for inside in found.mask[found.class_id == value - 1] if len(found) else ():
                    drawn |= inside
                assert differs_by_one_px_at_most(drawn, mask == value), path
