"""Otsu's threshold: the score that separates maps into objects and background without masks."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.functional.reduction import sum_over_ranks

BINS = 100
"""Steps of the histogram, and so of the threshold, between 0 and 1."""


@torch.no_grad()
def score_histogram(scores: Tensor, valid: Tensor) -> Tensor:
    """Count the scores of the batches of all processes in equal steps from 0 to 1.

    Args:
        scores: Any shape, in [0, 1].
        valid: Same shape, bool; other scores are not counted.

    Returns:
        (BINS,) float32 counts.
    """
    counted = torch.where(valid, scores, -1.0)  # `histc` leaves out what is outside of [0, 1]
    return sum_over_ranks(torch.histc(counted.float(), BINS, 0, 1))


def otsu_threshold(histogram: Tensor) -> Tensor:
    """Choose the threshold for which the two parts of a histogram differ most.

    Args:
        histogram: (BINS,) non-negative counts of equal steps from 0 to 1.

    Returns:
        Scalar in (0, 1), the upper limit of a step: the largest variance between both parts, that
        is the smallest within them. If several are equal, as over a gap, their mean.

    Source:
        Otsu: A threshold selection method from gray-level histograms, 1979.

    Example:
        >>> import torch
        >>> histogram = torch.zeros(BINS)
        >>> histogram[[10, 70]] = torch.tensor([30.0, 10.0])  # the gap is from 0.11 to 0.70
        >>> round(otsu_threshold(histogram).item(), 3)
        0.405
    """
    bins = len(histogram)
    share = histogram / histogram.sum().clamp_min(1e-12)
    upper = torch.arange(1, bins + 1, device=histogram.device) / bins
    below = share.cumsum(0)[:-1]
    moment = (share * (upper - 0.5 / bins)).cumsum(0)
    between = (moment[-1] * below - moment[:-1]).square() / (below * (1 - below)).clamp_min(1e-6)
    best = (between >= between.max() * (1 - 1e-5)).to(upper.dtype)
    return (upper[:-1] * best).sum() / best.sum()
