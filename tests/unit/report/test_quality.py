import numpy as np
import pytest

from tag2mask.errors import DataError
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.report.images import ReportImages, TrueMasks
from tag2mask.report.quality import (
    confusion_rows,
    frequent_mistakes,
    measure_quality,
    tag_calibration,
)


class Images(ReportImages):
    """Masks and true masks in memory; a mask of None cannot be read."""

    def __init__(self, masks, truth=(), tags=(), scores=()):
        self.class_names, self.class_source = ("cat", "cow"), "classifier"
        self._masks, true = dict(masks), dict(truth)
        self.names, self.tags, self.scores = tuple(self._masks), dict(tags), dict(scores)
        self.uncertainty = {}
        self.truth = TrueMasks("hand", frozenset(true), true.__getitem__) if true else None

    def image(self, name):
        raise DataError(f"{name}: no image")

    def mask(self, name):
        if self._masks[name] is None:
            raise DataError(f"{name}: torn")
        return self._masks[name]


def row(*values):
    return np.array([values], dtype=np.uint8)


def test_quality_is_that_of_a_hand_count():
    masks = {"a": row(0, 1, 1, 1), "b": row(2, 2, 0, 0), "c": row(0, 0, 0, 0)}
    truth = {"a": row(0, 0, 1, 1), "b": row(2, 2, 2, 2)}
    quality = measure_quality(Images(masks, truth), frozenset("a"))
    assert quality.values["iou"] == pytest.approx([1 / 4, 2 / 3, 2 / 4])
    assert quality.values["miou"] == pytest.approx((1 / 4 + 2 / 3 + 1 / 2) / 3)
    assert quality.image_iou == pytest.approx({"a": 2 / 3, "b": 0.5})
    assert (quality.values["images"], quality.available, quality.trained_on) == (2, 2, 1)
    assert quality.values["class_source"] == "classifier"
    assert quality.mistakes[0] == ("cow", "background", 0.5)
    assert quality.columns == ("background", "cat", "cow", "other")


def test_without_a_true_mask_there_is_no_quality():
    assert measure_quality(Images({"a": row(0, 1)}), frozenset()) is None
    assert measure_quality(Images({"a": row(0, 1)}, {"z": row(0, 1)}), frozenset()) is None


def test_masks_that_cannot_be_compared_are_left_out():
    masks = {"a": row(1, 1), "torn": None, "other size": row(1, 1, 1)}
    quality = measure_quality(Images(masks, {name: row(1, 1) for name in masks}), frozenset())
    assert list(quality.image_iou) == ["a"]
    assert measure_quality(Images({"torn": None}, {"torn": row(1)}), frozenset()) is None


def test_rows_of_the_table_sum_to_one_and_name_what_has_no_column():
    matrix = ConfusionMatrix(3)
    matrix.counts[:] = [[8, 1, 1, 0], [2, 5, 0, 3], [0, 0, 0, 0]]
    names, rows = confusion_rows(matrix, ("cat", "cow"))
    assert names == ("background", "cat")  # no cow is true
    assert [one.name for one in rows] == ["background", "cat"]
    assert rows[0].shares == pytest.approx((0.8, 0.1, 0.1))
    assert rows[1].shares == pytest.approx((0.2, 0.5, 0.3))
    assert [one.own for one in rows] == [0, 1]


def test_of_many_classes_the_worst_are_shown():
    size = 31
    matrix = ConfusionMatrix(size)
    matrix.counts[:, :-1] = np.eye(size, dtype=np.int64) * 100
    matrix.counts[20, 3] = 50
    names, rows = confusion_rows(matrix, tuple(f"k{value}" for value in range(1, size)))
    assert len(rows) == 12
    assert {"background", "k3", "k20"} <= set(names)


def test_mistakes_are_sorted_by_pixels():
    matrix = ConfusionMatrix(3)
    matrix.counts[:] = [[900, 0, 90, 0], [30, 20, 0, 0], [0, 1, 0, 0]]
    assert frequent_mistakes(matrix, ("cat", "cow")) == (
        ("background", "cow", pytest.approx(90 / 990)),
        ("cat", "background", 0.6),
        ("cow", "cat", 1.0),
    )


def test_tags_are_calibrated_on_held_out_images_if_there_are_enough():
    names = [f"{at:02}" for at in range(40)]
    tags = {name: ["cat"] for name in names}
    scores = {name: {"cat": 0.95, "cow": 0.15} for name in names}
    images = Images(dict.fromkeys(names, row(0)), tags=tags, scores=scores)
    found = tag_calibration(images, frozenset(names[:20]))
    assert (found.images, found.held_out) == (20, True)
    assert found.calibration.bins() == [
        (pytest.approx(0.15), 0.0, 20),
        (pytest.approx(0.95), 1.0, 20),
    ]
    found = tag_calibration(images, frozenset(names[:21]))
    assert (found.images, found.held_out) == (40, False)
    assert tag_calibration(Images({"a": row(0)}), frozenset()) is None
