import math

import numpy as np
import pytest

from tag2mask.evaluation.confusion import pair_runs
from tag2mask.evaluation.object_sizes import count_objects, size_quarters


def test_an_object_is_all_pixels_of_one_class_in_one_image() -> None:
    truth = np.array([[1, 1, 0, 1], [3, 255, 0, 0]], dtype=np.uint8)
    prediction = np.array([[1, 0, 1, 255], [3, 3, 2, 0]], dtype=np.uint8)
    # Class 1: 3 true, 2 predicted, 1 in common; class 3: the pixel beside it is ignored; class 2 is
    # predicted only, so it is no object.
    assert count_objects(pair_runs(truth, prediction)).tolist() == [[3, 2, 1], [1, 1, 1]]


def test_quarters_equal_a_hand_count() -> None:
    first, second = [[8, 8, 8], [2, 4, 2]], [[12, 18, 6], [10, 0, 0], [4, 2, 2]]
    quarters = size_quarters([np.array(first), np.array(second)])
    # By true area: 2 and 4 (of five objects, the first quarter has two), 8, 10, 12.
    assert [part.objects for part in quarters] == [2, 1, 1, 1]
    assert [(part.smallest_px, part.largest_px) for part in quarters][:2] == [(2, 4), (8, 8)]
    assert [part.iou for part in quarters] == pytest.approx([1 / 2, 1, 0, 1 / 4])
    assert [part.area_ratio for part in quarters] == pytest.approx([1.25, 1, 0, 1.5])


def test_without_objects_scores_are_undefined() -> None:
    quarters = size_quarters([])
    assert [part.objects for part in quarters] == [0] * 4
    assert all(math.isnan(part.iou) and math.isnan(part.area_ratio) for part in quarters)
