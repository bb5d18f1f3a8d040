import numpy as np
import pytest

from tag2mask.errors import DataError
from tag2mask.evaluation.confusion import ConfusionMatrix, pair_counts, pair_runs


def mask(*rows):
    return np.array(rows, dtype=np.uint8)


def test_iou_equals_a_count_by_hand_with_ignored_and_absent_classes():
    matrix = ConfusionMatrix(4)
    matrix.update(mask([0, 0, 1, 1], [2, 2, 255, 255]), mask([0, 1, 1, 1], [2, 0, 2, 0]))
    assert matrix.counts.tolist() == [[1, 1, 0, 0, 0], [0, 2, 0, 0, 0], [1, 0, 1, 0, 0], [0] * 5]
    np.testing.assert_allclose(matrix.iou(), [1 / 3, 2 / 3, 1 / 2, np.nan])
    assert matrix.miou() == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)


def test_a_predicted_ignore_counts_as_a_miss():
    matrix = ConfusionMatrix(2)
    matrix.update(mask([1, 1, 1, 0]), mask([1, 255, 255, 255]))
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 1, 2]]
    np.testing.assert_allclose(matrix.iou(), [0, 1 / 3])


def test_a_class_without_true_pixels_has_iou_0_and_does_not_enter_the_mean():
    matrix = ConfusionMatrix(3)
    matrix.update(mask([0, 0, 1, 1]), mask([0, 2, 1, 1]))
    np.testing.assert_allclose(matrix.iou(), [1 / 2, 1, 0])
    assert matrix.miou() == pytest.approx(3 / 4)


def test_without_pixels_the_score_is_nan():
    matrix = ConfusionMatrix(3)
    matrix.update(mask([255, 255]), mask([0, 1]))
    assert np.isnan(matrix.iou()).all()
    assert np.isnan(matrix.miou())


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (mask([0, 3]), mask([0, 1]), "true mask holds value 3.* 3 classes"),
        (mask([0, 1]), mask([0, 254]), "predicted mask holds value 254"),
        (mask([0, 1]), mask([0, 1, 1]), "differ in size"),
        (mask([0, 1]).astype(np.int64), mask([0, 1]), "uint8"),
    ],
)
def test_an_invalid_mask_is_rejected_with_one_line(truth, prediction, message):
    matrix = ConfusionMatrix(3)
    with pytest.raises(DataError, match=message) as caught:
        matrix.update(truth, prediction)
    assert "\n" not in str(caught.value)
    assert not matrix.counts.any()


def test_runs_cross_rows_and_end_where_either_mask_changes():
    pairs, pixels = pair_runs(mask([0, 0, 1], [1, 1, 1]), mask([2, 2, 3], [3, 255, 255]))
    assert pairs.tolist() == [2, 256 + 3, 256 + 255]
    assert pixels.tolist() == [2, 2, 2]


def test_counts_of_runs_equal_counts_of_pixels():
    rng = np.random.default_rng(0)
    images = [tuple(rng.integers(0, 256, (2, 7, 9), dtype=np.uint8)) for _ in range(3)]
    images.append((np.zeros((5, 4), np.uint8), np.zeros((5, 4), np.uint8)))
    images.append((np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8)))
    expected = np.zeros((256, 256), dtype=np.int64)
    for truth, prediction in images:
        np.add.at(expected, (truth, prediction), 1)
    counts = pair_counts([pair_runs(*pair) for pair in images])
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)
