"""Cross-entropy between logits and pseudo-labels, balanced between background and foreground."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.types import BACKGROUND, IGNORE


def segmentation_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Average the cross-entropy over background and over foreground, and weigh each by one half.

    Args:
        logits: (N, C, H, W), background first.
        label: (N, H, W) int64 in 0..C-1, 255 ignore.

    Returns:
        Scalar. A half without labeled pixels in the batch of all processes is 0.

    Source:
        AFA, section 3.5; Specification 2.8.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 3)
        >>> segmentation_loss(logits, torch.tensor([[[0, 1, 255]]])).item()  # log 2
        0.6931471824645996
    """
    loss = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")  # 0 where ignored
    background = (label == BACKGROUND).to(loss.dtype)
    foreground = ((label != BACKGROUND) & (label != IGNORE)).to(loss.dtype)
    return 0.5 * (masked_mean(loss, background) + masked_mean(loss, foreground))


def masked_mean(value: Tensor, weight: Tensor) -> Tensor:
    """Average `value` where the 0/1 `weight` is 1, over all processes; 0 if it is 0 everywhere."""
    return sum_over_ranks((value * weight).sum()) / sum_over_ranks(weight.sum()).clamp_min(1)
