"""Score every background threshold in one pass over the class activation maps.

A threshold only decides whether a pixel's strongest class wins against background. So one histogram
of (true class, strongest class, number of thresholds exceeded) holds every confusion matrix.
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
        Specification 5.2. Choose the threshold on one list of images and report scores on another.

    Example:
        >>> import numpy as np
        >>> sweep = ThresholdSweep([0.1, 0.5, 0.8], num_classes=2)
        >>> cam = np.array([[[0.9, 0.6, 0.3, 0.0]]], dtype=np.float32)
        >>> sweep.update(cam, np.array([[1, 1, 0, 0]], dtype=np.uint8))
        >>> sweep.best()
        (0.5, 1.0)
    """

    def __init__(self, thresholds: Sequence[float], num_classes: int) -> None:
        """Start with no pixels.

        Args:
            thresholds: In any order; `self.thresholds` has them sorted, without duplicates.
            num_classes: C, background included.

        Raises:
            ValueError: If there is no threshold or no foreground class.
        """
        self.thresholds = np.unique(np.asarray(thresholds, dtype=np.float64))
        self.num_classes = num_classes
        if not len(self.thresholds) or num_classes < 2:
            raise ValueError("a sweep needs at least one threshold and one foreground class")
        self._pixels: Counts = np.zeros(
            (num_classes, num_classes - 1, len(self.thresholds) + 1), dtype=np.int64
        )  # (C true, F strongest, number of thresholds exceeded)

    def update(self, cam: npt.NDArray[np.float32], truth: Mask) -> None:
        """Add one image.

        Args:
            cam: (F, H, W) normalized class activation maps, 0 for classes that are not selected.
                Compared with the thresholds in its own precision, as `cam > t` does.
            truth: (H, W) in 0..C-1 or 255.

        Raises:
            DataError: If the sizes or class counts differ, or the truth holds another value.
        """
        if cam.shape != (self.num_classes - 1, *truth.shape):
            raise DataError(
                f"cam {cam.shape} does not fit {self.num_classes - 1} classes and a true "
                f"mask of {truth.shape}; predict at the image's own size"
            )
        counted = truth != IGNORE
        label = truth[counted].astype(np.intp)
        if label.max(initial=0) >= self.num_classes:
            raise DataError(
                f"the true mask holds value {label.max()}, but there are {self.num_classes} "
                f"classes (0 to {self.num_classes - 1}, and 255 for ignore); check the class list"
            )
        strongest = cam.argmax(axis=0)
        peak = np.take_along_axis(cam, strongest[None], axis=0)[0][counted]
        exceeded = np.searchsorted(self.thresholds.astype(cam.dtype), peak, side="left")
        _, foreground, bins = self._pixels.shape
        index = (label * foreground + strongest[counted]) * bins + exceeded
        pixels = np.bincount(index, minlength=self._pixels.size)
        self._pixels += pixels.reshape(self._pixels.shape)

    def miou(self) -> npt.NDArray[np.float64]:
        """Return the (T,) mean IoU of each of `self.thresholds`; NaN without counted pixels."""
        return np.array([self._matrix(index).miou() for index in range(len(self.thresholds))])

    def best(self) -> tuple[float, float]:
        """Return the lowest threshold with the highest mean IoU, and that mean IoU.

        Raises:
            DataError: If no pixel was counted.
        """
        if not self._pixels.any():
            raise DataError(
                "no true pixel to choose a threshold by; check that this list has masks"
            )
        miou = self.miou()
        index = int(miou.argmax())
        return float(self.thresholds[index]), float(miou[index])

    def report_at(self, threshold: float) -> ConfusionMatrix:
        """Return the confusion matrix at one of the sweep's thresholds.

        Raises:
            ValueError: If the sweep does not have this threshold.
        """
        index = int(np.abs(self.thresholds - threshold).argmin())
        if not np.isclose(self.thresholds[index], threshold):
            raise ValueError(
                f"threshold {threshold} is not in the sweep; nearest: {self.thresholds[index]}"
            )
        return self._matrix(index)

    def _matrix(self, index: int) -> ConfusionMatrix:
        """Return the confusion matrix at `self.thresholds[index]`."""
        matrix = ConfusionMatrix(self.num_classes)
        matrix.counts[:, 1:-1] = self._pixels[:, :, index + 1 :].sum(axis=2)
        matrix.counts[:, BACKGROUND] = self._pixels[:, :, : index + 1].sum(axis=(1, 2))
        return matrix
