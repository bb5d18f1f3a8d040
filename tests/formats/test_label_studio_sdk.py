"""Label Studio's SDK accepts labeling interface and predictions, and decodes the masks exactly."""

import json

import numpy as np
import pytest
from tests.formats.conftest import scene_masks
from tests.unit.formats.conftest import CLASSES

from tag2mask.formats.brush_rle import decode
from tag2mask.formats.label_studio import LabelStudio

brush = pytest.importorskip("label_studio_sdk.converter.brush")
interface = pytest.importorskip("label_studio_sdk.label_interface")
pytestmark = pytest.mark.formats


@pytest.fixture
def project(export):
    return export("label_studio", "project")


@pytest.fixture
def tasks(project):
    return json.loads((project / "tasks.json").read_text(encoding="utf-8"))


def decoded(regions, shape):
    """A mask from brush regions, read by the SDK alone."""
    mask = np.zeros(shape, dtype=np.uint8)
    for region in regions:
        pixels = brush.decode_rle(region["value"]["rle"]).reshape(*shape, 4)
        assert np.array_equal(pixels[..., 0], pixels[..., 3])
        mask[pixels[..., 3] > 128] = 1 + CLASSES.index(region["value"]["brushlabels"][0])
    return mask


def opacity(region):
    """(H, W) values 0 or 255 of one region."""
    values = brush.decode_rle(region["value"]["rle"])
    return values.reshape(region["original_height"], region["original_width"], 4)[..., 3]


def test_the_sdk_decodes_the_masks(tasks):
    masks = scene_masks()
    assert {task["data"]["name"] for task in tasks} == masks.keys()
    for task in tasks:
        mask = masks[task["data"]["name"]]
        found = decoded(task["predictions"][0]["result"], mask.shape)
        assert np.array_equal(found, mask)


def test_the_labeling_interface_accepts_the_tasks(project, tasks):
    labels = interface.LabelInterface((project / "config.xml").read_text(encoding="utf-8"))
    labels.validate()
    for task in tasks:
        assert labels.validate_prediction(task["predictions"][0])


def test_masks_encoded_by_the_sdk_are_read():
    for mask in scene_masks().values():
        assert np.array_equal(
            decode(brush.mask2rle((mask == 1) * np.uint8(255)), mask.shape), mask == 1
        )


def test_corrected_masks_come_back(project, tasks, tmp_path):
    swapped = {"cat": "two words", "two words": "cat"}
    exported = []
    for task in tasks:
        regions = [
            {
                **region,
                "value": {
                    "format": "rle",
                    "rle": brush.mask2rle(opacity(region)),
                    "brushlabels": [swapped[region["value"]["brushlabels"][0]]],
                },
            }
            for region in task["predictions"][0]["result"]
        ]
        exported.append({"data": task["data"], "annotations": [{"result": regions}]})
    path = project / "export.json"
    path.write_text(json.dumps(exported), encoding="utf-8")
    read = dict(LabelStudio().read(path).masks)
    for name, mask in scene_masks().items():
        assert np.array_equal(read[name], np.array([0, 2, 1], dtype=np.uint8)[mask])
