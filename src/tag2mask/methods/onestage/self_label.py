"""1Stage's self-supervision: confident pseudo-labels from refined masks, and a balanced loss.

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
    min_score: float = 0.2,
) -> Tensor:
    """Label the pixels at which exactly one class is confident; no gradient.

    Args:
        score: (N, C, H, W) in [0, 1], background first.
        tags: (N, F) in {0, 1}; absent classes are never confident.
        valid: (N, H, W) bool, False on crop padding, which is ignored.
        share: Fraction of its largest score in the image that a confident class exceeds.
        background_share: The same fraction for background.
        min_score: Score that every confident class exceeds.

    Returns:
        (N, H, W) int64 in 0..F and 255.

    Source:
        Specification 4.4: score > max(0.2, 0.6 max_c), 0.7 for background; pixels with no or
        several confident classes are 255.

    Example:
        >>> import torch
        >>> score = torch.tensor([[[[0.9, 0.6, 0.7]], [[0.1, 0.4, 0.5]]]])
        >>> self_label(score, torch.ones(1, 1), torch.ones(1, 1, 3, dtype=torch.bool))
        tensor([[[  0,   1, 255]]])
    """
    present = F.pad(tags, (1, 0), value=1.0)  # (N, C)
    score = score.detach() * present[:, :, None, None] * valid[:, None].to(score.dtype)
    peak = score.amax(dim=(2, 3), keepdim=True)
    threshold = torch.cat([background_share * peak[:, :1], share * peak[:, 1:]], dim=1)
    confident = score > threshold.clamp_min(min_score)  # (N, C, H, W)
    unique = confident.sum(dim=1) == 1
    return torch.where(unique, confident.to(torch.uint8).argmax(dim=1), IGNORE)


def balanced_label_loss(logits: Tensor, label: Tensor, tags: Tensor) -> Tensor:
    """Compute the cross-entropy with more weight for the rare classes of each image.

    Only images in which background and every tag have a labeled pixel contribute.

    Args:
        logits: (N, C, H, W), background first.
        label: (N, H, W) int64, 255 or background or a class of `tags`.
        tags: (N, F) in {0, 1}.

    Returns:
        Scalar; 0 if no image contributes.

    Source:
        Specification 4.4: weight (total - n_c) / (1 + total), with counts over the image's labeled
        pixels; mean over all pixels of all images, including those that do not contribute.
    """
    count = pixel_counts(label, logits.shape[1])  # (N, C)
    weight = class_weights(count)
    loss = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
    index = label.masked_fill(label == IGNORE, BACKGROUND)  # any class: the loss is 0 there
    loss = loss * weight.gather(1, index.flatten(1)).view(loss.shape)
    return (loss.mean(dim=(1, 2)) * is_complete(count, tags)).mean()


def pixel_counts(label: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of each class in (N, H, W) labels: (N, C) float, without 255."""
    flat = label.flatten(1)
    flat = flat.masked_fill(flat == IGNORE, num_classes)
    count = torch.zeros(len(flat), num_classes + 1, device=label.device)
    # Sums of ones are exact, so the order of a parallel sum does not matter.
    count = count.scatter_add_(1, flat, torch.ones_like(flat, dtype=count.dtype))
    return count[:, :num_classes]


def class_weights(count: Tensor) -> Tensor:
    """Compute (N, C) class weights in [0, 1) from pixel counts; rare classes weigh more."""
    total = count.sum(dim=1, keepdim=True)
    return (total - count) / (1 + total)


def is_complete(count: Tensor, tags: Tensor) -> Tensor:
    """Mark the images in which background and all tags have a pixel: (N,) float in {0, 1}."""
    missing = (count[:, 1:] == 0) & (tags > 0)
    return (~missing.any(dim=1) & (count[:, 0] > 0)).to(count.dtype)
