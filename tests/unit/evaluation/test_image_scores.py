import math

import numpy as np
import pytest

from tag2mask.errors import DataError
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.evaluation.image_scores import ScoredMask, score_images


def mask(rows):
    return np.array(rows, dtype=np.uint8)


def slow_iou(truth, prediction):
    """The mean over object classes of |common| / |either|, by sets of pixels."""
    counted = {at for at in np.ndindex(truth.shape) if truth[at] != 255}
    values = []
    for value in (1, 2):
        true = {at for at in counted if truth[at] == value}
        made = {at for at in counted if prediction[at] == value}
        if true | made:
            values.append(len(true & made) / len(true | made))
    return sum(values) / len(values) if values else math.nan


def test_each_image_and_all_together_agree_with_slow_counts():
    rng = np.random.default_rng(0)
    masks = [
        ScoredMask(f"{at}", *rng.choice([0, 1, 2, 255], (2, 6, 7), p=p).astype(np.uint8))
        for at, p in enumerate([(0.3, 0.3, 0.3, 0.1), (0.9, 0, 0.1, 0), (1, 0, 0, 0)])
    ]
    scores = score_images(masks, 3)
    for name, truth, prediction in masks:
        assert scores.images[name] == pytest.approx(slow_iou(truth, prediction), nan_ok=True)
    total = ConfusionMatrix(3)
    for _, truth, prediction in masks:
        total.update(truth, prediction)
    assert (scores.matrix.counts == total.counts).all()


def test_an_image_that_mostly_does_not_count_gets_no_score():
    truth = mask([[1, 255, 255, 255]])
    scores = score_images([ScoredMask("a", truth, mask([[1, 0, 0, 0]]))], 2)
    assert math.isnan(scores.images["a"])
    assert scores.matrix.counts.sum() == 1


def test_without_background_its_true_pixels_are_ignored():
    masks = [ScoredMask("a", mask([[0, 1, 1, 1]]), mask([[2, 1, 1, 2]]))]
    scores = score_images(masks, 3, has_background=False)
    assert scores.matrix.counts[0].sum() == 0
    assert scores.images["a"] == pytest.approx((2 / 3 + 0 / 1) / 2)


def test_another_size_is_an_error():
    with pytest.raises(DataError, match="differ in size"):
        score_images([ScoredMask("a", mask([[0]]), mask([[0, 1]]))], 2)
