import numpy as np
import pytest

from tag2mask.errors import DataError
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.evaluation.sweep import ThresholdSweep

THRESHOLDS = [0.3, 0.1, 0.2, 0.45, 0.7, 0.0, 1.0]


def images(dtype, num_foreground=3):
    """Yield random maps with many pixels exactly on a threshold, or 0 for every class."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        score = rng.random((num_foreground, 19, 23)).astype(dtype)
        on_threshold = rng.random(score.shape) < 0.4
        score[on_threshold] = rng.choice(np.array(THRESHOLDS, dtype=dtype), on_threshold.sum())
        score[:, :3] = 0
        score[1] *= rng.integers(2)
        values = np.array([*range(num_foreground + 1), 255], dtype=np.uint8)
        yield score, rng.choice(values, (19, 23))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_threshold_equals_the_direct_computation(dtype):
    sweep = ThresholdSweep(THRESHOLDS, 4)
    direct = {t: ConfusionMatrix(4) for t in sorted(THRESHOLDS)}
    for score, truth in images(dtype):
        sweep.update(score, truth)
        for t, matrix in direct.items():
            prediction = np.where(score.max(axis=0) > t, score.argmax(axis=0) + 1, 0)
            matrix.update(truth, prediction.astype(np.uint8))
    for t, matrix in direct.items():
        np.testing.assert_array_equal(sweep.report_at(t).counts, matrix.counts)
    np.testing.assert_allclose(sweep.miou(), [matrix.miou() for matrix in direct.values()])


def test_best_threshold_equals_a_count_by_hand():
    sweep = ThresholdSweep([0.1, 0.5, 0.8], 2)
    cam = np.array([[[0.9, 0.6, 0.3, 0.0]]], dtype=np.float32)
    sweep.update(cam, np.array([[1, 1, 0, 0]], dtype=np.uint8))
    np.testing.assert_allclose(sweep.miou(), [(1 / 2 + 2 / 3) / 2, 1, (2 / 3 + 1 / 2) / 2])
    assert sweep.best() == (0.5, 1.0)


def test_a_threshold_outside_the_sweep_is_rejected():
    sweep = ThresholdSweep([0.1, 0.5], 2)
    with pytest.raises(ValueError, match=r"0\.4 is not in the sweep; nearest: 0\.5"):
        sweep.report_at(0.4)


@pytest.mark.parametrize(("thresholds", "num_classes"), [([], 3), ([0.5], 1)])
def test_a_sweep_without_thresholds_or_classes_is_rejected(thresholds, num_classes):
    with pytest.raises(ValueError, match="at least one threshold"):
        ThresholdSweep(thresholds, num_classes)


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ((2, 4, 6), 1, "predict at the image's own size"),
        ((3, 4, 5), 1, "does not fit 2 classes"),
        ((2, 4, 5), 3, "true mask holds value 3"),
    ],
)
def test_invalid_maps_or_masks_are_rejected_with_one_line(shape, value, message):
    sweep = ThresholdSweep([0.5], 3)
    with pytest.raises(DataError, match=message) as caught:
        sweep.update(np.zeros(shape, dtype=np.float32), np.full((4, 5), value, dtype=np.uint8))
    assert "\n" not in str(caught.value)


def test_without_counted_pixels_there_is_no_best_threshold():
    sweep = ThresholdSweep([0.5], 3)
    sweep.update(np.ones((2, 4, 5), dtype=np.float32), np.full((4, 5), 255, dtype=np.uint8))
    assert np.isnan(sweep.miou()).all()
    with pytest.raises(DataError, match="no true pixel"):
        sweep.best()
