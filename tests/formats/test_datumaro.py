"""Datumaro, which CVAT imports with, reads COCO and "Segmentation mask 1.1" exactly."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.formats.conftest import scene_masks

datumaro = pytest.importorskip("datumaro")
pytestmark = pytest.mark.formats
Export = Callable[[str, str], Path]


def mask_of(item, labels: dict[str, int]) -> np.ndarray:
    """Paint the annotations of an item, which must not overlap."""
    mask = np.zeros(scene_masks()[item.id].shape, dtype=np.uint8)
    for annotation in item.annotations:
        if annotation.type == datumaro.AnnotationType.bbox:  # COCO has a box for each mask
            continue
        inside = np.asarray(annotation.image).astype(bool)
        assert not mask[inside].any()
        mask[inside] = labels[annotation.label]
    return mask


def values(dataset) -> dict[int, int]:
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    known = ("background", "cat", "two words")
    return {index: known.index(name) for index, name in enumerate(names)}


def test_cvat_masks_are_exact_and_parts_are_objects(export: Export, tmp_path: Path) -> None:
    with zipfile.ZipFile(export("cvat", "masks.zip")) as archive:
        archive.extractall(tmp_path / "unpacked")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "unpacked"), "voc_segmentation")
    labels = values(dataset)
    found = {item.id: item for item in dataset}
    assert found.keys() == scene_masks().keys()
    for name, mask in scene_masks().items():
        assert np.array_equal(mask_of(found[name], labels), mask), name
    assert found["none"].annotations == []
    assert len(found["lane2/parts"].annotations) == 4
    assert len(found["big/ring"].annotations) == 2


def test_coco_masks_are_exact(export: Export, tmp_path: Path) -> None:
    export("coco", "annotations/instances_train.json")  # beside the folder `images`
    dataset = datumaro.Dataset.import_from(str(tmp_path), "coco_instances")
    dataset.transform("polygons_to_masks")
    labels = values(dataset)
    found = {item.id: item for item in dataset}
    assert found.keys() == scene_masks().keys()
    for name, mask in scene_masks().items():
        assert np.array_equal(mask_of(found[name], labels), mask), name
    scores = {annotation.attributes.get("score") for annotation in found["square"].annotations}
    assert scores == {0.75}
