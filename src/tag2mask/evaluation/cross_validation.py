"""Choose one of several settings by images with known truth, and estimate what the choice is worth.

The best score among many settings is too good: some win by chance on a few images. So every part of
the images is also scored at the setting that the other parts choose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tag2mask.evaluation.confusion import Counts

FOLDS = 5
"""Parts of the images; as many as images if these are fewer."""
Score = Callable[[Counts], float]
"""Turns summed counts into a score; larger is better, NaN if nothing counts."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The setting that all images choose, and what the same way of choosing gives on other images.

    Scores are those of summed counts, not means over images.
    """

    index: int
    """Position of the chosen setting."""
    score: float
    """Of the chosen setting on the images that chose it: too good."""
    validated: float
    """Of the images, each part at the setting that the other parts chose."""
    folds: tuple[float, ...]
    """The same for each part alone."""
    selected: tuple[int, ...]
    """Setting that the other parts chose for each part."""
    scores: tuple[float, ...]
    """Of every setting on all images."""

    @property
    def spread(self) -> tuple[float, float]:
        """Lowest and highest score of a part."""
        known = [score for score in self.folds if not math.isnan(score)]
        return (min(known), max(known)) if known else (math.nan, math.nan)


def cross_validate(counts: Counts, score: Score) -> Choice:
    """Choose the setting with the best score; the first of equal ones.

    Args:
        counts: (S, N, ...) counts of S settings and N >= 2 images, which add up over images.
        score: Scores summed counts (...).

    Raises:
        ValueError: If there are fewer than two images.
    """
    images = counts.shape[1]
    if images < 2:
        raise ValueError(f"cross-validation needs two images, got {images}")
    parts = min(FOLDS, images)
    total = counts.sum(axis=1)
    scores = [score(one) for one in total]
    held_out = np.zeros_like(total[0])
    folds, selected = [], []
    for part in range(parts):
        own = counts[:, part::parts].sum(axis=1)
        best = _best([score(one) for one in total - own])
        selected.append(best)
        folds.append(score(own[best]))
        held_out += own[best]
    best = _best(scores)
    return Choice(best, scores[best], score(held_out), tuple(folds), tuple(selected), tuple(scores))


def _best(scores: list[float]) -> int:
    """Return the first position of the highest score; NaN is lower than any number."""
    known = [-math.inf if math.isnan(score) else score for score in scores]
    return known.index(max(known))
