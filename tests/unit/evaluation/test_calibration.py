import math

import numpy as np
import pytest

from tag2mask.evaluation.calibration import Calibration


def test_bins_and_error_agree_with_slow_counts():
    rng = np.random.default_rng(0)
    prob, right = rng.random((4, 50)), rng.random((4, 50)) < 0.4
    calibration = Calibration()
    for row, is_right in zip(prob, right, strict=True):
        calibration.add(row, is_right)
    groups = [[], [], [], [], [], [], [], [], [], []]
    for one, is_right in zip(prob.ravel(), right.ravel(), strict=True):
        groups[min(int(one * 10), 9)].append((one, is_right))
    groups = [group for group in groups if group]
    means = [tuple(np.mean(group, axis=0)) for group in groups]
    np.testing.assert_allclose([one[:2] for one in calibration.bins()], means)
    assert [one.number for one in calibration.bins()] == [len(group) for group in groups]
    gaps = [len(group) * abs(p - r) for group, (p, r) in zip(groups, means, strict=True)]
    assert calibration.error() == pytest.approx(sum(gaps) / 200)


def test_certain_statements_count_and_rare_ones_can_be_left_out():
    calibration = Calibration()
    calibration.add(np.array([0.0, 1.0, 1.0]), np.array([False, True, True]))
    assert calibration.bins() == [(0.0, 0.0, 1), (1.0, 1.0, 2)]
    assert calibration.bins(fewest=2) == [(1.0, 1.0, 2)]
    assert calibration.error() == 0


def test_nothing_is_known_without_statements():
    assert Calibration().bins() == []
    assert math.isnan(Calibration().error())


def test_other_shapes_are_an_error():
    with pytest.raises(ValueError, match="differ"):
        Calibration().add(np.zeros(2), np.zeros(3, dtype=bool))
