import math

import numpy as np
import pytest

from tag2mask.evaluation.metrics import average_precision, f1, mean_average_precision


def test_hand_counted_average_precision_and_a_class_nobody_shows():
    score = np.array([[0.9, 0.1, 0.3], [0.8, 0.2, 0.3], [0.7, 0.3, 0.3], [0.1, 0.4, 0.3]])
    tags = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=np.uint8)
    np.testing.assert_allclose(average_precision(score, tags), [(1 + 2 / 3) / 2, 1 / 4, np.nan])
    assert mean_average_precision(score, tags) == pytest.approx((5 / 6 + 1 / 4) / 2)


def test_equal_scores_are_one_group_whatever_the_order():
    tags = np.array([[1], [0], [0], [0]], dtype=np.uint8)
    score = np.full((4, 1), 0.5, dtype=np.float32)
    np.testing.assert_allclose(average_precision(score, tags), [1 / 4])
    np.testing.assert_allclose(average_precision(score, tags[::-1]), [1 / 4])


def test_no_positives_at_all_is_not_a_number():
    assert math.isnan(mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2), dtype=np.uint8)))


def test_f1_is_counted_per_image_then_averaged():
    probs = np.array([[0.9, 0.9, 0.1], [0.9, 0.1, 0.1], [0.1, 0.1, 0.1]])
    tags = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=np.uint8)
    assert f1(probs, tags) == pytest.approx((1 / 2 + 1 + 1) / 3)


def test_probability_on_the_threshold_names_nothing():
    assert f1(np.array([[0.5]]), np.array([[1]], dtype=np.uint8), threshold=0.5) == 0.0
    assert f1(np.array([[0.5]]), np.array([[1]], dtype=np.uint8), threshold=0.4) == 1.0


def test_no_images_is_not_a_number():
    assert math.isnan(f1(np.zeros((0, 2)), np.zeros((0, 2), dtype=np.uint8)))


def test_shapes_that_differ_are_rejected():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        average_precision(np.zeros((2, 3)), np.zeros((3, 2), dtype=np.uint8))
