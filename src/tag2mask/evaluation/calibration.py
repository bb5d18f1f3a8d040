"""Calibration: of everything that a network says with 80 % probability, are 80 % right?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

BINS = 10
"""Number of equal intervals of the probability."""
FEWEST = 5
"""An interval with fewer statements shows chance only."""


class CalibrationBin(NamedTuple):
    """All statements whose probability lies in one interval."""

    mean_prob: float
    share_right: float
    number: int


class Calibration:
    """Counts how often statements of each probability are right.

    Example:
        >>> import numpy as np
        >>> calibration = Calibration()
        >>> calibration.add(np.array([0.9, 0.9]), np.array([True, False]))
        >>> calibration.bins()
        [CalibrationBin(mean_prob=0.9, share_right=0.5, number=2)]
        >>> round(calibration.error(), 2)
        0.4
    """

    def __init__(self) -> None:
        """Start without statements."""
        self._count = np.zeros(BINS, dtype=np.int64)
        self._right = np.zeros(BINS, dtype=np.int64)
        self._prob = np.zeros(BINS, dtype=np.float64)

    @property
    def count(self) -> int:
        """Number of statements."""
        return int(self._count.sum())

    def add(self, prob: npt.NDArray[Any], is_right: npt.NDArray[np.bool_]) -> None:
        """Add statements.

        Args:
            prob: Probabilities in [0, 1], of any shape.
            is_right: Whether each is right, of the same shape.

        Raises:
            ValueError: If the shapes differ.
        """
        if prob.shape != is_right.shape:
            raise ValueError(f"probabilities {prob.shape} and truth {is_right.shape} differ")
        flat = prob.ravel().astype(np.float64)
        index = np.minimum((flat * BINS).astype(np.intp), BINS - 1)
        self._count += np.bincount(index, minlength=BINS)
        self._right += np.bincount(index[is_right.ravel()], minlength=BINS)
        self._prob += np.bincount(index, weights=flat, minlength=BINS)

    def bins(self, fewest: int = 1) -> list[CalibrationBin]:
        """Return the intervals that have at least `fewest` statements, by rising probability."""
        return [
            CalibrationBin(
                float(self._prob[at] / self._count[at]),
                float(self._right[at] / self._count[at]),
                int(self._count[at]),
            )
            for at in np.flatnonzero(self._count >= max(fewest, 1)).tolist()
        ]

    def error(self) -> float:
        """Return the expected calibration error: the mean gap of probability and truth; 0 is best.

        Source:
            Guo et al.: On Calibration of Modern Neural Networks, 2017, Eq. 3.
        """
        if not self.count:
            return float("nan")
        gaps = [one.number * abs(one.mean_prob - one.share_right) for one in self.bins()]
        return float(sum(gaps) / self.count)
