"""Every background threshold judged in one pass over the evidence.

A threshold only decides whether a pixel's strongest class beats background. So one histogram of
(true class, strongest class, how many thresholds it beats) holds every confusion matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tag2mask.errors import DataError
from tag2mask.evaluation.confusion import ConfusionMatrix, Counts
from tag2mask.types import BACKGROUND, IGNORE, Mask


class ThresholdSweep:
    """Confusion matrices of `where(max > t, argmax + 1, 0)` for many thresholds t at once.

    Source:
        Specification 5.2. Choose the threshold on one list of images and report on another.
    """

    def __init__(self, thresholds: Sequence[float], num_classes: int) -> None:
        """Start with no pixels.

        Args:
            thresholds: In any order; kept sorted, without doubles, in `self.thresholds`.
            num_classes: C, background included.

        Raises:
            ValueError: If there is no threshold or no foreground class.
        """
        self.thresholds = np.unique(np.asarray(thresholds, dtype=np.float64))
        self.num_classes = num_classes
        if not len(self.thresholds) or num_classes < 2:
            raise ValueError("a sweep needs at least one threshold and one class beside background")
        self._pixels: Counts = np.zeros(
            (num_classes, num_classes - 1, len(self.thresholds) + 1), dtype=np.int64
        )  # (C true, F strongest, number of thresholds beaten)

    def update(self, score: npt.NDArray[np.float32], truth: Mask) -> None:
        """Add one image.

        Args:
            score: (F, H, W) normalized evidence, 0 for classes that the gate leaves out. Compared
                with the thresholds in its own precision, as `score > t` does.
            truth: (H, W) in 0..C-1 or 255.

        Raises:
            DataError: If the sizes or class counts differ, or the truth holds another value.
        """
        if score.shape != (self.num_classes - 1, *truth.shape):
            raise DataError(
                f"evidence {score.shape} does not fit {self.num_classes - 1} classes and a true "
                f"mask of {truth.shape}: predict at the image's own size"
            )
        real = truth != IGNORE
        label = truth[real].astype(np.intp)
        if label.max(initial=0) >= self.num_classes:
            raise DataError(
                f"the true mask holds value {label.max()}, but there are {self.num_classes} "
                f"classes (0 to {self.num_classes - 1}, and 255 for ignore): check the class list"
            )
        strongest = score.argmax(axis=0)
        peak = np.take_along_axis(score, strongest[None], axis=0)[0][real]
        beaten = np.searchsorted(self.thresholds.astype(score.dtype), peak, side="left")
        _, foreground, bins = self._pixels.shape
        index = (label * foreground + strongest[real]) * bins + beaten
        pixels = np.bincount(index, minlength=self._pixels.size)
        self._pixels += pixels.reshape(self._pixels.shape)

    def miou(self) -> npt.NDArray[np.float64]:
        """(T,) mean IoU per threshold of `self.thresholds`; NaN before the first real pixel."""
        return np.array([self._matrix(index).miou() for index in range(len(self.thresholds))])

    def best(self) -> tuple[float, float]:
        """The threshold of the highest mean IoU (the lowest such) and that mean IoU.

        Raises:
            DataError: If no real pixel was seen.
        """
        if not self._pixels.any():
            raise DataError(
                "no true pixel to choose a threshold by: are there masks for this list?"
            )
        miou = self.miou()
        index = int(miou.argmax())
        return float(self.thresholds[index]), float(miou[index])

    def report_at(self, threshold: float) -> ConfusionMatrix:
        """The confusion matrix at one of the sweep's thresholds.

        Raises:
            ValueError: If the sweep does not hold it.
        """
        index = int(np.abs(self.thresholds - threshold).argmin())
        if not np.isclose(self.thresholds[index], threshold):
            raise ValueError(
                f"threshold {threshold} is not in the sweep; nearest: {self.thresholds[index]}"
            )
        return self._matrix(index)

    def _matrix(self, index: int) -> ConfusionMatrix:
        """The confusion matrix at `self.thresholds[index]`."""
        matrix = ConfusionMatrix(self.num_classes)
        matrix.counts[:, 1:-1] = self._pixels[:, :, index + 1 :].sum(axis=2)
        matrix.counts[:, BACKGROUND] = self._pixels[:, :, : index + 1].sum(axis=(1, 2))
        return matrix
