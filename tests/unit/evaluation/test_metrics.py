import math

import numpy as np
import pytest

from tag2mask.evaluation.metrics import average_precision, mean_average_precision


def test_average_precision_equals_a_count_by_hand():
    score = np.array([[0.9, 0.1, 0.3], [0.8, 0.2, 0.3], [0.7, 0.3, 0.3], [0.1, 0.4, 0.3]])
    tags = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=np.uint8)
    np.testing.assert_allclose(average_precision(score, tags), [(1 + 2 / 3) / 2, 1 / 4, np.nan])
    assert mean_average_precision(score, tags) == pytest.approx((5 / 6 + 1 / 4) / 2)


def test_equal_scores_form_one_group_in_any_order():
    tags = np.array([[1], [0], [0], [0]], dtype=np.uint8)
    score = np.full((4, 1), 0.5, dtype=np.float32)
    np.testing.assert_allclose(average_precision(score, tags), [1 / 4])
    np.testing.assert_allclose(average_precision(score, tags[::-1]), [1 / 4])


def test_without_positives_the_score_is_nan():
    assert math.isnan(mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2), dtype=np.uint8)))


def test_different_shapes_are_rejected():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        average_precision(np.zeros((2, 3)), np.zeros((3, 2), dtype=np.uint8))
