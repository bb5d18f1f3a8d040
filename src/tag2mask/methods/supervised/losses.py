"""Cross-entropy between a decoder's logits and masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.segmentation import masked_mean
from tag2mask.types import IGNORE


def pixel_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Average the cross-entropy over all labeled pixels.

    Args:
        logits: (N, C, H, W), background first.
        label: (N, H, W) int64 in 0..C-1, 255 ignore.

    Returns:
        Scalar; 0 without labeled pixels in the batch of all processes.
    """
    loss = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
    return masked_mean(loss, (label != IGNORE).to(loss.dtype))
