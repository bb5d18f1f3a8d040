import json
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.unit.formats.conftest import CLASSES, drawn_masks

from tag2mask.errors import DataError
from tag2mask.formats.brush_rle import encode
from tag2mask.formats.collection import open_masks
from tag2mask.formats.label_studio import LabelStudio


def written(masks, tmp_path):
    out = tmp_path / "project"
    out.mkdir()
    LabelStudio().write(masks, out)
    return out


def annotated(tasks):
    """What Label Studio exports when a person accepts every prediction."""
    return [
        {
            "id": at,
            "data": task["data"],
            "annotations": [{"result": task["predictions"][0]["result"]}],
        }
        for at, task in enumerate(tasks)
    ]


def saved(tasks, folder):
    path = folder / "export.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return path


def test_predictions_name_the_tags_of_the_labeling_interface(masks, tmp_path):
    out = written(masks, tmp_path)
    view = ElementTree.parse(out / "config.xml").getroot()
    image, brush = view.find("Image"), view.find("BrushLabels")
    assert brush.get("toName") == image.get("name")
    assert [label.get("value") for label in brush] == list(CLASSES)
    assert brush[0].get("background") == "#800000"
    for task in json.loads((out / "tasks.json").read_text()):
        assert (out / task["data"]["image"].rpartition("?d=")[2]).is_file()
        assert image.get("value") == "$image"
        for region in task["predictions"][0]["result"]:
            assert (region["from_name"], region["to_name"]) == (brush.get("name"), "image")
            assert region["type"] == "brushlabels"


def test_scores_are_kept_and_an_empty_mask_has_an_empty_prediction(masks, tmp_path):
    tasks = json.loads((written(masks, tmp_path) / "tasks.json").read_text())
    by_name = {task["data"]["name"]: task["predictions"][0] for task in tasks}
    assert by_name["none"]["result"] == []
    (region,) = by_name["lane1/ring"]["result"]
    assert region["score"] == by_name["lane1/ring"]["score"] == 0.75


def test_accepted_predictions_come_back(masks, tmp_path):
    out = written(masks, tmp_path)
    tasks = json.loads((out / "tasks.json").read_text())
    found = LabelStudio().read(saved(annotated(tasks), out))
    assert found.class_names == CLASSES
    read = dict(found.masks)
    assert read.keys() == drawn_masks().keys()
    for name, mask in drawn_masks().items():
        assert np.array_equal(read[name], mask), name


def test_ignored_pixels_survive(write_masks, tmp_path):
    mask = np.array([[0, 1, 255], [0, 1, 255]], dtype=np.uint8)
    out = written(open_masks(write_masks({"one": mask})), tmp_path)
    tasks = json.loads((out / "tasks.json").read_text())
    found = LabelStudio().read(saved(annotated(tasks), out))
    assert found.class_names == CLASSES
    assert np.array_equal(dict(found.masks)["one"], mask)


def test_the_newest_annotation_counts_and_others_are_left_out(tmp_path):
    def result(mask):
        value = {"format": "rle", "rle": encode(mask), "brushlabels": ["cat"]}
        return [{"type": "brushlabels", "original_width": 2, "original_height": 1, "value": value}]

    left, right = np.array([[True, False]]), np.array([[False, True]])
    data = {"image": "/data/upload/1/abc-cow.jpg", "name": "cow"}
    versions = [
        {"updated_at": "2026-02-01", "result": result(right)},
        {"updated_at": "2026-01-01", "result": result(left)},
        {"updated_at": "2026-03-01", "was_cancelled": True, "result": result(left)},
    ]
    tasks = [{"data": data, "annotations": versions}, {"data": {"image": "x.jpg"}}]
    found = LabelStudio().read(saved(tasks, tmp_path))
    ((name, mask),) = found.masks
    assert (name, mask.tolist(), found.class_names) == ("cow", [[0, 1]], ("cat",))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"images": []}, "export as JSON"),
        ([{"image": "x.jpg"}], "not JSON-MIN"),
        (
            [{"data": {"image": "cow.jpg"}, "annotations": [{"result": [{"type": "polygon"}]}]}],
            "'cow' has a region of type 'polygon'",
        ),
        ([{"data": {"image": "cow.jpg"}, "annotations": [{"result": []}]}], "width and height"),
    ],
)
def test_other_exports_are_rejected(tasks, message, tmp_path):
    with pytest.raises(DataError, match=message):
        list(LabelStudio().read(saved(tasks, tmp_path)).masks)
