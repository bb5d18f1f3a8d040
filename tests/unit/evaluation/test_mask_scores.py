import numpy as np
import pytest
import torch

from tag2mask.errors import DataError
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.evaluation.mask_scores import (
    ListScores,
    count_mask,
    count_pairs,
    count_pixels,
    mean_iou,
    report_at_chosen,
    score_masks,
)
from tag2mask.inference.candidate_masks import NO_THRESHOLD, ImageCandidates, ThresholdMasks


def candidates(cam, masks):
    by_kind = {
        kind: ThresholdMasks(tuple(found), torch.from_numpy(np.stack(list(found.values()))))
        for kind, found in masks.items()
    }
    return ImageCandidates(np.array(cam, dtype=np.float32), by_kind)


def mask(*values):
    return np.array([values], dtype=np.uint8)


def scores_of(cam, masks, truth):
    scores = ListScores(num_classes=2)
    found = candidates(cam, masks)
    scores.add(found, count_pixels(found, truth, {}), truth)
    return scores


def test_the_threshold_comes_from_the_other_list():
    # Chosen: 0.5 separates (0.6 is object, 0.4 is not). Reported: 0.5 misses half of the object.
    chosen = scores_of([[[0.6, 0.4, 0.4, 0.4]]], {}, mask(1, 0, 0, 0))
    reported = scores_of([[[0.6, 0.3, 0.0, 0.0]]], {}, mask(1, 1, 0, 0))
    score = report_at_chosen(chosen, reported)["cam"]
    assert 0.4 <= score.threshold < 0.6
    assert score.iou == (pytest.approx(2 / 3, abs=1e-4), 0.5)
    assert score.miou == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-4)
    own = report_at_chosen(reported, reported)["cam"]
    assert own.miou == 1.0  # what choosing on the reported list would have claimed


def test_every_other_kind_has_a_threshold_of_its_own():
    better = {0.2: mask(1, 0), 0.4: mask(1, 1)}
    chosen = scores_of([[[0.9, 0.1]]], {"cam + refiner": better}, mask(1, 0))
    reported = scores_of([[[0.9, 0.1]]], {"cam + refiner": better}, mask(1, 1))
    score = report_at_chosen(chosen, reported)["cam + refiner"]
    assert score.threshold == 0.2
    assert score.iou == (0.0, 0.5)


def test_a_kind_without_threshold_says_so():
    masks = {"decoder": {NO_THRESHOLD: mask(1, 0)}}
    scores = scores_of([[[0.9, 0.1]]], masks, mask(1, 0))
    assert report_at_chosen(scores, scores)["decoder"].threshold is None


def test_a_class_without_pixels_has_no_score():
    scores = ListScores(num_classes=3)
    scores.add(candidates([[[0.9, 0.1]], [[0.0, 0.0]]], {}), {}, mask(1, 0))
    score = report_at_chosen(scores, scores)["cam"]
    assert score.iou == (1.0, 1.0, None)
    assert score.miou == 1.0


def test_pixels_of_all_masks_are_counted_at_once():
    random = np.random.default_rng(0)
    truth = random.choice([0, 1, 3, 255], (5, 7)).astype(np.uint8)
    masks = random.choice([0, 2, 3], (3, 5, 7)).astype(np.uint8)
    counts = count_pairs(torch.from_numpy(masks), truth)
    for predicted_mask, pairs in zip(masks, counts, strict=True):
        assert pairs.sum() == truth.size
        for true in (0, 1, 3, 255):
            for value in (0, 2, 3):
                expected = ((truth == true) & (predicted_mask == value)).sum()
                assert pairs[true, value] == expected


def test_a_list_is_scored_as_its_images_one_by_one(segmenter, source):
    recipe = segmenter.recipe
    predict = recipe.predict.model_copy(update={"background": 0.3, "refine": False})
    user = type(segmenter)(segmenter.method, recipe.model_copy(update={"predict": predict}), "cpu")
    expected = ConfusionMatrix(4)
    for index in range(len(source)):
        sample = source[index]
        expected.update(sample.mask, user.segment(sample.image, sample.tags).mask)
    scores = score_masks(segmenter, source)
    assert scores["tags"].images == len(source)
    assert set(scores["tags"].kinds) == {"cam + refiner"}
    counted = scores["tags"].cam.report_at(0.3).counts
    assert abs(counted - expected.counts).sum() <= 0.02 * expected.counts.sum()  # bf16


def test_a_limit_spreads_the_images_evenly(segmenter, source):
    assert score_masks(segmenter, source, limit=2)["classifier"].images == 2


def test_progress_is_reported(segmenter, source, monkeypatch):
    monkeypatch.setattr("tag2mask.evaluation.mask_scores.IMAGES_BETWEEN_NOTES", 2)
    lines = []
    score_masks(segmenter, source, notify=lines.append)
    assert lines == ["2 of 4 images", "4 of 4 images"]


def test_a_list_without_masks_cannot_be_scored(segmenter, source):
    source.has_masks = False
    with pytest.raises(DataError, match="nothing to score against"):
        score_masks(segmenter, source)


def test_one_mask_is_counted_by_class():
    truth = mask(0, 1, 1, 2, 255)
    counts = count_mask(torch.from_numpy(mask(0, 1, 2, 2, 1)), truth, 3)
    assert counts.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]


def test_mean_iou_is_hand_counted():
    counts = np.array([[6, 2, 0], [1, 3, 0]])
    assert mean_iou(counts) == pytest.approx((6 / 9 + 3 / 6) / 2)
