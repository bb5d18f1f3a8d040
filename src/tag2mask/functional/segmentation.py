"""Losses of a decoder against masks: pixels weigh the same, or background as much as the rest."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.types import BACKGROUND, IGNORE


def segmentation_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy, half its mean over background pixels and half its mean over foreground.

    Args:
        logits: (N, C, H, W), background first.
        label: (N, H, W) int64 in 0..C - 1, 255 ignore.

    Returns:
        Scalar; a half without a labeled pixel in the whole batch counts 0.

    Source:
        AFA, section 3.5 with Specification 2.8; means are over the batch of all processes.
    """
    loss = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")  # 0 where ignored
    background = (label == BACKGROUND).to(loss.dtype)
    foreground = ((label != BACKGROUND) & (label != IGNORE)).to(loss.dtype)
    return 0.5 * (_mean_over(loss, background) + _mean_over(loss, foreground))


def pixel_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy, its mean over all labeled pixels.

    Args:
        logits: (N, C, H, W), background first.
        label: (N, H, W) int64 in 0..C - 1, 255 ignore.

    Returns:
        Scalar; 0 without a labeled pixel in the whole batch, that of all processes.
    """
    loss = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
    return _mean_over(loss, (label != IGNORE).to(loss.dtype))


def _mean_over(value: Tensor, weight: Tensor) -> Tensor:
    """Mean of `value` where the 0/1 `weight` is 1, over all processes; 0 where it never is."""
    return sum_over_ranks((value * weight).sum()) / sum_over_ranks(weight.sum()).clamp_min(1)
