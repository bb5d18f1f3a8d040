"""One confusion matrix over all images; IoU is read once, as counts add up and averages do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tag2mask.errors import DataError
from tag2mask.types import IGNORE, Mask

Counts = npt.NDArray[np.int64]
Runs = tuple[npt.NDArray[np.uint16], Counts]
"""Pairs of mask values, true * 256 + predicted, and how many pixels in a row have each."""
MASK_VALUES = 256
"""So many values a uint8 mask may hold: one histogram over their pairs serves any class count."""


def pair_runs(truth: Mask, prediction: Mask) -> Runs:
    """Walk over two (H, W) masks in raster order and note where either changes.

    Counting runs in place of pixels takes a quarter of the time, as masks have large areas.
    """
    true, found = truth.ravel(), prediction.ravel()
    changes = (true[1:] != true[:-1]) | (found[1:] != found[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])[: true.size]
    pairs = true[starts].astype(np.uint16) * MASK_VALUES + found[starts]
    return pairs, np.diff(starts, append=true.size)


def pair_counts(runs: Sequence[Runs]) -> Counts:
    """(256, 256) pixels by true (row) and predicted value (column)."""
    pairs = np.concatenate([pair for pair, _ in runs])
    pixels = np.concatenate([length for _, length in runs])
    # Sums of whole numbers are exact in float64 up to 2^53.
    counts = np.bincount(pairs, weights=pixels, minlength=MASK_VALUES**2)
    return counts.astype(np.int64).reshape(MASK_VALUES, MASK_VALUES)


class ConfusionMatrix:
    """Pixel counts of every true class against every predicted one.

    True pixels of value 255 do not count. A predicted 255 on any other pixel is no way out: it
    counts as a miss of that pixel's class (last column).
    """

    def __init__(self, num_classes: int) -> None:
        """Start with no pixels; `num_classes` is C, background included."""
        self.num_classes = num_classes
        self.counts: Counts = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
        """(C, C + 1) pixels by true (row) and predicted class (column); column C: left as 255."""

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
                "prediction: convert them first"
            )
        if truth.shape != prediction.shape:
            raise DataError(
                f"true mask {truth.shape} and predicted mask {prediction.shape} differ in size: "
                "predict at the image's own size"
            )
        self.add_pairs(pair_counts([pair_runs(truth, prediction)]))

    def add_pairs(self, counts: Counts) -> None:
        """Add pixels that are counted already, (256, 256) as `pair_counts` returns them.

        Raises:
            DataError: If there are values beside the classes and 255; then nothing is added.
        """
        self._reject_unknown("true", counts.sum(axis=1))
        self._reject_unknown("predicted", counts.sum(axis=0))
        self.counts[:, :-1] += counts[: self.num_classes, : self.num_classes]
        self.counts[:, -1] += counts[: self.num_classes, IGNORE]

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the pixels of another matrix, of another process for instance.

        Raises:
            ValueError: If it has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.counts += other.counts

    def iou(self) -> npt.NDArray[np.float64]:
        """(C,) intersection over union in [0, 1]; NaN for a class neither true nor predicted.

        Source:
            Specification 5.2: TP / (true + predicted - TP).
        """
        hit = np.diag(self.counts)
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - hit
        iou: npt.NDArray[np.float64] = np.full(self.num_classes, np.nan)
        np.divide(hit, union, out=iou, where=union > 0)
        return iou

    def miou(self) -> float:
        """Mean IoU over the classes that have true pixels; NaN if none has."""
        seen = self.counts.sum(axis=1) > 0
        return float(self.iou()[seen].mean()) if seen.any() else float("nan")

    def _reject_unknown(self, which: str, pixels: Counts) -> None:
        """Raise DataError if a mask holds a value that is neither a class nor 255."""
        unknown = [value for value in np.flatnonzero(pixels) if self.num_classes <= value != IGNORE]
        if unknown:
            raise DataError(
                f"the {which} mask holds value {unknown[0]}, but there are {self.num_classes} "
                f"classes (0 to {self.num_classes - 1}, and 255 for ignore): check the class list"
            )
