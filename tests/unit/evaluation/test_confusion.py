import numpy as np
import pytest

from tag2mask.errors import DataError
from tag2mask.evaluation.confusion import ConfusionMatrix, pair_counts, pair_runs


def mask(*rows):
    return np.array(rows, dtype=np.uint8)


def test_hand_counted_iou_with_ignored_truth_and_an_absent_class():
    matrix = ConfusionMatrix(4)
    matrix.update(mask([0, 0, 1, 1], [2, 2, 255, 255]), mask([0, 1, 1, 1], [2, 0, 2, 0]))
    assert matrix.counts.tolist() == [[1, 1, 0, 0, 0], [0, 2, 0, 0, 0], [1, 0, 1, 0, 0], [0] * 5]
    np.testing.assert_allclose(matrix.iou(), [1 / 3, 2 / 3, 1 / 2, np.nan])
    assert matrix.miou() == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)


def test_predicted_ignore_on_a_real_pixel_is_a_miss():
    matrix = ConfusionMatrix(2)
    matrix.update(mask([1, 1, 1, 0]), mask([1, 255, 255, 255]))
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 1, 2]]
    np.testing.assert_allclose(matrix.iou(), [0, 1 / 3])


def test_a_class_predicted_but_never_true_has_iou_zero_and_is_left_out_of_the_mean():
    matrix = ConfusionMatrix(3)
    matrix.update(mask([0, 0, 1, 1]), mask([0, 2, 1, 1]))
    np.testing.assert_allclose(matrix.iou(), [1 / 2, 1, 0])
    assert matrix.miou() == pytest.approx(3 / 4)


def test_no_pixels_is_not_a_number():
    matrix = ConfusionMatrix(3)
    matrix.update(mask([255, 255]), mask([0, 1]))
    assert np.isnan(matrix.iou()).all()
    assert np.isnan(matrix.miou())


def test_merged_matrices_equal_one_that_saw_all_images():
    rng = np.random.default_rng(0)
    values = np.array([0, 1, 2, 3, 4, 255], dtype=np.uint8)
    images = [(rng.choice(values, (7, 9)), rng.choice(values, (7, 9))) for _ in range(4)]
    whole, first, second = ConfusionMatrix(5), ConfusionMatrix(5), ConfusionMatrix(5)
    for index, (truth, prediction) in enumerate(images):
        whole.update(truth, prediction)
        (first if index % 2 else second).update(truth, prediction)
    first.merge(second)
    np.testing.assert_array_equal(first.counts, whole.counts)
    assert whole.counts.sum() == sum((truth != 255).sum() for truth, _ in images)


def test_another_class_count_is_not_merged():
    with pytest.raises(ValueError, match="4 classes into 3"):
        ConfusionMatrix(3).merge(ConfusionMatrix(4))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (mask([0, 3]), mask([0, 1]), "true mask holds value 3.* 3 classes"),
        (mask([0, 1]), mask([0, 254]), "predicted mask holds value 254"),
        (mask([0, 1]), mask([0, 1, 1]), "differ in size"),
        (mask([0, 1]).astype(np.int64), mask([0, 1]), "uint8"),
    ],
)
def test_a_mask_that_cannot_be_counted_is_rejected_in_one_line(truth, prediction, message):
    matrix = ConfusionMatrix(3)
    with pytest.raises(DataError, match=message) as caught:
        matrix.update(truth, prediction)
    assert "\n" not in str(caught.value)
    assert not matrix.counts.any()


def test_runs_go_over_the_ends_of_rows_and_end_where_either_mask_changes():
    pairs, pixels = pair_runs(mask([0, 0, 1], [1, 1, 1]), mask([2, 2, 3], [3, 255, 255]))
    assert pairs.tolist() == [2, 256 + 3, 256 + 255]
    assert pixels.tolist() == [2, 2, 2]


def test_counts_of_runs_are_counts_of_pixels():
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
