"""Training a network on its own refined masks: sure pixels, balanced classes, whole images.

Source:
    1Stage (arXiv 2005.08104), section 3.4; Specification 4.4.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.types import BACKGROUND, IGNORE


def self_label(
    score: Tensor,
    tags: Tensor,
    valid: Tensor,
    *,
    share: float = 0.6,
    background_share: float = 0.7,
    least: float = 0.2,
) -> Tensor:
    """Label the pixels of which one class alone is sure; no gradient.

    Args:
        score: (N, C, H, W) in [0, 1], background first.
        tags: (N, F) in {0, 1}; absent classes are never sure.
        valid: (N, H, W) bool, False on crop padding, which is ignored.
        share: Of its own largest score what a class must exceed at a pixel.
        background_share: Likewise for background.
        least: What every class must exceed, however low its largest score.

    Returns:
        (N, H, W) int64 in 0..F and 255.

    Source:
        Specification 4.4: score > max(0.2, 0.6 max_c), background 0.7; more than one class,
        or none, is 255.
    """
    present = F.pad(tags, (1, 0), value=1.0)  # (N, C)
    score = score.detach() * present[:, :, None, None] * valid[:, None].to(score.dtype)
    peak = score.amax(dim=(2, 3), keepdim=True)
    level = torch.cat([background_share * peak[:, :1], share * peak[:, 1:]], dim=1)
    confident = score > level.clamp_min(least)  # (N, C, H, W)
    alone = confident.sum(dim=1) == 1
    return torch.where(alone, confident.to(torch.uint8).argmax(dim=1), IGNORE)


def balanced_label_loss(logits: Tensor, label: Tensor, tags: Tensor) -> Tensor:
    """Cross-entropy in which rare classes of an image weigh more; images with a gap count nothing.

    Args:
        logits: (N, C, H, W), background first.
        label: (N, H, W) int64 in 0..F and 255, classes of `tags` and background alone.
        tags: (N, F) in {0, 1}.

    Returns:
        Scalar; 0 where no image counts.

    Source:
        Specification 4.4: weight (total - n_c) / (1 + total) of the image's labeled
        pixels; only images where background and every tag have a pixel; mean over all pixels of
        all images, those that count nothing included.
    """
    count = pixel_counts(label, logits.shape[1])  # (N, C)
    weight = class_weights(count)
    loss = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
    known = label.masked_fill(label == IGNORE, BACKGROUND)  # there the loss is 0
    loss = loss * weight.gather(1, known.flatten(1)).view(loss.shape)
    return (loss.mean(dim=(1, 2)) * is_complete(count, tags)).mean()


def pixel_counts(label: Tensor, num_classes: int) -> Tensor:
    """(N, H, W) labels to the (N, C) float number of pixels of each class; 255 is none of them."""
    flat = label.flatten(1)
    flat = flat.masked_fill(flat == IGNORE, num_classes)
    count = torch.zeros(len(flat), num_classes + 1, device=label.device)
    # Sums of ones are exact, so that the order of a parallel sum does not matter.
    count = count.scatter_add_(1, flat, torch.ones_like(flat, dtype=count.dtype))
    return count[:, :num_classes]


def class_weights(count: Tensor) -> Tensor:
    """(N, C) pixels of each class to its (N, C) weight in [0, 1): rarer is heavier."""
    total = count.sum(dim=1, keepdim=True)
    return (total - count) / (1 + total)


def is_complete(count: Tensor, tags: Tensor) -> Tensor:
    """(N,) float, 1 where background and all classes of the (N, F) tags have a pixel."""
    missing = (count[:, 1:] == 0) & (tags > 0)
    return (~missing.any(dim=1) & (count[:, 0] > 0)).to(count.dtype)
