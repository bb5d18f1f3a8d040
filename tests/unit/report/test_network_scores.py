import numpy as np
import pytest
import torch

from tag2mask.config.recipe import parse_recipe
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method
from tag2mask.report import network_scores
from tag2mask.report.images import PredictedImages, RunData
from tag2mask.report.network_scores import (
    THRESHOLDS,
    data_images,
    images_with_truth,
    predicted_images,
    score_network,
)

CLASSES = ("house", "beetle", "flag", "target", "board")


def make_recipe(**data):
    scenes = {"name": "synthetic", "count": 4, "val_count": 3, "size_px": 64, "crop_px": 64}
    raw = {
        "data": {**scenes, **data},
        "backbone": {"name": "tiny"},
        "method": {"name": "cam"},
        "predict": {"long_side_px": 0, "scales": [1.0], "flip": False},
    }
    return parse_recipe(raw, "test").with_classes(CLASSES)


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    recipe = make_recipe()
    return Segmenter(build_method(recipe), recipe, "cpu")


def test_sweep_and_calibration_agree_with_slow_counts(segmenter):
    chosen = data_images(RunData(make_recipe()))
    scores = score_network(segmenter, chosen, frozenset(), keep=True)
    assert [one.name for one in chosen] == ["val_000000", "val_000001", "val_000002"]
    assert (scores.images, scores.trained_on) == (3, 0)
    assert scores.calibration.count == 3 * 64 * 64
    right = total = 0
    for one in chosen:
        maps = segmenter.thresholded_maps(segmenter.infer(one.image, one.tags))
        made = np.where(maps.max(axis=0) > 0.3, maps.argmax(axis=0) + 1, 0)
        common = [((made == v) & (one.truth == v)).sum() for v in range(6)]
        union = [((made == v) | (one.truth == v)).sum() for v in range(6)]
        right, total = right + np.array(common), total + np.array(union)
        prediction = segmenter.segment(one.image, one.tags)
        assert (scores.predictions[one.name].mask == prediction.mask).all()
        assert scores.predictions[one.name].uncertainty == prediction.uncertainty
    true = np.array([sum((one.truth == v).sum() for one in chosen) for v in range(6)]) > 0
    at = THRESHOLDS.index(0.3)
    assert scores.sweep.miou()[at] == pytest.approx((right / np.maximum(total, 1))[true].mean())


def test_without_truth_nothing_is_scored_and_nothing_kept(segmenter):
    chosen = [one._replace(truth=None) for one in data_images(RunData(make_recipe()))]
    scores = score_network(segmenter, chosen, frozenset(["val_000001"]))
    assert (scores.sweep, scores.calibration.count) == (None, 0)
    assert (scores.predictions, scores.trained_on) == ({}, 1)


def test_training_images_are_used_if_none_are_held_out():
    names = [one.name for one in data_images(RunData(make_recipe(val_count=0)))]
    assert names == [f"train_{at:06d}" for at in range(4)]
    assert data_images(RunData(None)) == []


def test_masks_made_for_the_page_have_tags_and_truth(segmenter):
    data = RunData(make_recipe())
    chosen = data_images(data)
    scores = score_network(segmenter, chosen, frozenset(), keep=True)
    images = predicted_images(segmenter, scores, chosen, data)
    assert images.with_truth == images.names
    row = data.parts["val"].tags[0]
    assert images.tags["val_000000"] == [CLASSES[at] for at in row.nonzero()[0]]


def test_images_of_a_folder_are_held_out_ones_if_there_are_enough(segmenter, monkeypatch):
    data = RunData(make_recipe())
    every = [one for part in ("train", "val") for one in data.parts[part].names]
    made = {name: segmenter.segment(data.image(name)) for name in every}
    images = PredictedImages(CLASSES, made, {}, data.true_masks(CLASSES))
    monkeypatch.setattr(network_scores, "FEWEST_HELD_OUT", 3)
    found = list(images_with_truth(images, segmenter, data.trained_on))
    assert [one.name for one in found] == list(data.parts["val"].names)
    assert found[0].tags is None
    monkeypatch.setattr(network_scores, "FEWEST_HELD_OUT", 4)
    assert len(list(images_with_truth(images, segmenter, data.trained_on))) == 7
    images.class_names = ("cat",)
    assert list(images_with_truth(images, segmenter, data.trained_on)) == []
