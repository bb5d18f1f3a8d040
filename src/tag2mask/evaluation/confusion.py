"""One confusion matrix over all images: counts add up, averages of IoU do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tag2mask.errors import DataError
from tag2mask.types import BACKGROUND, IGNORE, ClassSource, Mask, Report

Counts = npt.NDArray[np.int64]
Runs = tuple[npt.NDArray[np.uint16], Counts]
"""Pairs of mask values (true * 256 + predicted), and the length in pixels of each run of a pair."""
MASK_VALUES = 256
"""Number of values of a uint8 mask; one histogram over pairs of them serves any class count."""


def pair_runs(truth: Mask, prediction: Mask) -> Runs:
    """Encode two (H, W) masks as runs of equal pairs of values, in raster order.

    Counting runs takes a quarter of the time of counting pixels, because masks have large areas.
    """
    true, predicted = truth.ravel(), prediction.ravel()
    changes = (true[1:] != true[:-1]) | (predicted[1:] != predicted[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])[: true.size]
    pairs = true[starts].astype(np.uint16) * MASK_VALUES + predicted[starts]
    return pairs, np.diff(starts, append=true.size)


def pair_counts(runs: Sequence[Runs]) -> Counts:
    """Count the pixels of runs by true (row) and predicted value (column), (256, 256)."""
    pairs = np.concatenate([pair for pair, _ in runs])
    pixels = np.concatenate([length for _, length in runs])
    # Sums of integers are exact in float64 up to 2^53.
    counts = np.bincount(pairs, weights=pixels, minlength=MASK_VALUES**2)
    return counts.astype(np.int64).reshape(MASK_VALUES, MASK_VALUES)


class ConfusionMatrix:
    """Pixel counts of every true class against every predicted class.

    True pixels of value 255 do not count. A predicted 255 on any other pixel counts as a miss of
    that pixel's class (last column).

    Example:
        >>> import numpy as np
        >>> matrix = ConfusionMatrix(num_classes=2)
        >>> truth = np.array([[0, 1, 1, 255]], dtype=np.uint8)
        >>> prediction = np.array([[0, 1, 0, 1]], dtype=np.uint8)
        >>> matrix.update(truth, prediction)
        >>> matrix.iou().tolist()
        [0.5, 0.5]
    """

    def __init__(self, num_classes: int) -> None:
        """Start with no pixels; `num_classes` is C, background included."""
        self.num_classes = num_classes
        self.counts: Counts = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
        """(C, C + 1) pixels by true (row) and predicted class (column); column C: ignore."""

    def update(self, truth: Mask, prediction: Mask) -> None:
        """Add one image.

        Args:
            truth: (H, W) in 0..C-1 or 255.
            prediction: (H, W) in 0..C-1 or 255.

        Raises:
            DataError: If the sizes differ, or a mask is not uint8 or holds another value; then
                nothing is added.
        """
        if truth.dtype != np.uint8 or prediction.dtype != np.uint8:
            raise DataError(
                f"masks are uint8 class indices, got {truth.dtype} truth and {prediction.dtype} "
                "prediction; convert them first"
            )
        if truth.shape != prediction.shape:
            raise DataError(
                f"true mask {truth.shape} and predicted mask {prediction.shape} differ in size; "
                "predict at the image's own size"
            )
        self.add_pairs(pair_counts([pair_runs(truth, prediction)]))

    def add_pairs(self, counts: Counts) -> None:
        """Add pixels already counted, (256, 256) as `pair_counts` returns them.

        Raises:
            DataError: If a value is neither a class nor 255; then nothing is added.
        """
        self._reject_unknown("true", counts.sum(axis=1))
        self._reject_unknown("predicted", counts.sum(axis=0))
        self.counts[:, :-1] += counts[: self.num_classes, : self.num_classes]
        self.counts[:, -1] += counts[: self.num_classes, IGNORE]

    def drop_background(self) -> None:
        """Ignore true pixels of background, for masks in which every pixel belongs to a class.

        Example:
            >>> import numpy as np
            >>> matrix = ConfusionMatrix(num_classes=2)
            >>> matrix.update(
            ...     np.array([[0, 1]], dtype=np.uint8), np.array([[1, 1]], dtype=np.uint8)
            ... )
            >>> matrix.drop_background()
            >>> matrix.iou().tolist()
            [nan, 1.0]
        """
        self.counts[BACKGROUND] = 0

    def iou(self) -> npt.NDArray[np.float64]:
        """Return the (C,) intersection over union in [0, 1]; NaN for an absent class.

        A class is absent if it is neither true nor predicted anywhere.

        Source:
            Specification 5.2: TP / (true + predicted - TP).
        """
        hit = np.diag(self.counts)
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - hit
        iou: npt.NDArray[np.float64] = np.full(self.num_classes, np.nan)
        np.divide(hit, union, out=iou, where=union > 0)
        return iou

    def miou(self) -> float:
        """Return the mean IoU over the classes that have true pixels; NaN if none has."""
        has_truth = self.counts.sum(axis=1) > 0
        return float(self.iou()[has_truth].mean()) if has_truth.any() else float("nan")

    def report(
        self,
        class_names: Sequence[str],
        images: int,
        class_source: ClassSource | None,
        settings: Mapping[str, Any],
    ) -> Report:
        """Return the scores together with what is needed to compare them.

        Args:
            class_names: Foreground names in the order of mask values 1..F.
            images: Number of images in the matrix.
            class_source: Who chose the classes; None if unknown.
            settings: How the masks were made.
        """
        iou = tuple(float(value) for value in self.iou())
        true_pixels = self.counts.sum(axis=1)
        without_truth = tuple(
            name
            for name, pixels in zip(("background", *class_names), true_pixels, strict=True)
            if not pixels
        )
        return Report(
            tuple(class_names),
            iou,
            self.miou(),
            images,
            class_source,
            settings,
            without_truth=without_truth,
        )

    def _reject_unknown(self, which: str, pixels: Counts) -> None:
        """Raise DataError if a mask holds a value that is neither a class nor 255."""
        unknown = [value for value in np.flatnonzero(pixels) if self.num_classes <= value != IGNORE]
        if unknown:
            raise DataError(
                f"the {which} mask holds value {unknown[0]}, but there are {self.num_classes} "
                f"classes (0 to {self.num_classes - 1}, and 255 for ignore); check the class list"
            )
