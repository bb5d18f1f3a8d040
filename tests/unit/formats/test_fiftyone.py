import ast
import json

import numpy as np
import pytest
from PIL import Image as PILImage
from tests.unit.formats.conftest import CLASSES, drawn_masks

from tag2mask.errors import DataError
from tag2mask.formats.fiftyone import FiftyOne


def test_images_and_gray_masks_have_the_same_names(masks, tmp_path):
    FiftyOne().write(masks, tmp_path / "out")
    for name, mask in drawn_masks().items():
        assert (tmp_path / "out/data" / f"{name}.jpg").is_file()
        with PILImage.open(tmp_path / "out/labels" / f"{name}.png") as opened:
            assert (
                opened.mode == "L"
            )  # OpenCV, with which FiftyOne reads, turns a palette to colors
            assert np.array_equal(np.asarray(opened), mask)
    targets = json.loads((tmp_path / "out/mask_targets.json").read_text())
    assert targets == {"0": "background", "1": "cat", "2": "two words", "255": "ignore"}
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["lane1/ring.jpg"]["class_scores"] == {"cat": 0.75, "two words": 0.5}
    ast.parse((tmp_path / "out/load.py").read_text())


def test_masks_come_back(masks, tmp_path):
    FiftyOne().write(masks, tmp_path / "out")
    found = FiftyOne().read(tmp_path / "out")
    assert found.class_names == CLASSES
    read = dict(found.masks)
    assert all(np.array_equal(read[name], mask) for name, mask in drawn_masks().items())


def test_a_folder_without_names_is_rejected(tmp_path):
    with pytest.raises(DataError, match=r"mask_targets.json: cannot be read"):
        FiftyOne().read(tmp_path)
