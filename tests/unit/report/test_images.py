from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.config.recipe import parse_recipe
from tag2mask.data.synthetic import SCENE_CLASSES, SyntheticConfig, write_scenes
from tag2mask.errors import DataError
from tag2mask.io.mask_folder import append_scores, describe_classes, describe_image, write_classes
from tag2mask.io.masks import save_mask
from tag2mask.report.images import FolderImages, PredictedImages, RunData
from tag2mask.types import Prediction, Uncertainty


@pytest.fixture
def recipe(tmp_path):
    data = {"name": "synthetic", "count": 3, "val_count": 2, "size_px": 64}
    parts = {"data": data, "backbone": {"name": "tiny"}, "method": {"name": "cam"}}
    return parse_recipe(parts, "test")


def write_masks(folder: Path, names, image=None, **row) -> Path:
    write_classes(folder, describe_classes(SCENE_CLASSES, "tags", {}))
    for name in names:
        save_mask(np.ones((64, 64), dtype=np.uint8), folder / f"{name}.png")
        about = describe_image(name, image, (64, 64))
        append_scores(folder, {"name": name, "uncertainty": 0.5, **about, **row})
    return folder


def test_both_parts_of_the_data_are_open(recipe):
    data = RunData(recipe)
    assert data.trained_on == {"train_000000", "train_000001", "train_000002"}
    assert data.image("val_000001").shape == (64, 64, 3)
    assert data.error == ""
    with pytest.raises(DataError, match="no image file is known"):
        data.image("gone")


def test_lost_data_have_no_images():
    parts = {"backbone": {"name": "tiny"}, "method": {"name": "cam"}}
    data = RunData(parse_recipe({"data": {"name": "folder", "root": "gone"}, **parts}, "test"))
    assert (data.parts, data.trained_on) == ({}, frozenset())
    assert "gone: no such folder" in data.error
    assert RunData(None).true_masks(SCENE_CLASSES) is None


def test_image_comes_from_its_file_or_else_from_the_data(recipe, tmp_path):
    path = tmp_path / "val_000000.png"
    PILImage.new("RGB", (64, 64), (7, 8, 9)).save(path)
    images = FolderImages(write_masks(tmp_path / "m", ["val_000000"], path), RunData(recipe))
    assert images.image("val_000000")[0, 0].tolist() == [7, 8, 9]
    path.unlink()
    assert (images.image("val_000000") == RunData(recipe).image("val_000000")).all()
    assert images.mask("val_000000").tolist() == np.ones((64, 64)).tolist()
    assert (images.uncertainty, images.tags) == ({"val_000000": 0.5}, {})


def test_rows_without_a_mask_file_do_not_count(recipe, tmp_path):
    folder = write_masks(tmp_path / "m", ["a", "b"], tags=["flag"], scores={"flag": 0.9})
    (folder / "a.png").unlink()
    images = FolderImages(folder, RunData(recipe))
    assert images.names == ("b",)
    assert images.class_source == "tags"
    assert (images.tags, images.scores) == ({"b": ["flag"]}, {"b": {"flag": 0.9}})


def test_true_masks_of_the_data_are_found_by_name(recipe, tmp_path):
    images = FolderImages(write_masks(tmp_path / "m", ["val_000000", "x"]), RunData(recipe))
    images.find_truth(None, {})
    assert images.with_truth == ("val_000000",)
    sample = RunData(recipe).parts["val"][0]
    assert (images.truth.read("val_000000") == sample.mask).all()
    assert images.truth.origin == "the data set"


def test_chosen_and_scored_true_masks_come_first(recipe, tmp_path):
    write_scenes(SyntheticConfig(count=3, val_count=2, size_px=64), tmp_path / "scenes")
    truth = tmp_path / "scenes" / "masks"
    folder = write_masks(tmp_path / "m", ["val_000001"])
    images = FolderImages(folder, RunData(recipe))
    scored = {"predictions": str(folder), "truth": str(truth)}
    images.find_truth(None, {"scores.json": {"settings": scored}})
    assert images.truth.origin == str(truth)
    assert (images.truth.read("val_000001") == RunData(recipe).parts["val"][1].mask).all()
    images.find_truth(truth, {})
    assert images.truth.origin == str(truth)
    images.find_truth(None, {"scores.json": {"settings": scored | {"truth": "gone"}}})
    assert images.truth.origin == "the data set"
    with pytest.raises(DataError, match="gone: no such folder"):
        images.find_truth(tmp_path / "gone", {})


def test_masks_of_other_classes_have_no_truth_in_the_data(recipe, tmp_path):
    assert RunData(recipe).true_masks(("cat",)) is None


def test_predictions_are_images_too():
    mask, image = np.ones((2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    prediction = Prediction(
        mask, ("cat",), {"cat": 0.8}, "tags", image, uncertainty=Uncertainty(0.4, {})
    )
    images = PredictedImages(("cat",), {"a": prediction}, {"a": ["cat"]}, None)
    assert (images.names, images.uncertainty, images.with_truth) == (("a",), {"a": 0.4}, ())
    assert images.scores == {"a": {"cat": 0.8}}
    assert images.mask("a") is mask
    assert images.image("a") is image
