"""Class features and their softmax loss: which class is it that a class map looks at?"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["sum", "mean"]
"""Over the present classes of an image."""


def class_features(cam: Tensor, features: Tensor, eps: float = 1e-5) -> Tensor:
    """Average the features under each class map.

    Args:
        cam: (N, F, h, w) raw signed evidence; gradient flows through it and its peak.
        features: (N, D, h, w) on the same grid.
        eps: Keeps an empty map at 0.

    Returns:
        (N, F, D): mean over space of ReLU(cam) / peak times the features.

    Source:
        ReCAM, Eq. 3 with Specification 4.9. One matrix product per image: the (F, D, h, w)
        products are never written out.
    """
    mask = cam.relu()
    mask = mask / (mask.amax(dim=(2, 3), keepdim=True) + eps)
    pooled: Tensor = mask.flatten(2) @ features.flatten(2).transpose(1, 2).to(mask.dtype)
    return pooled / (cam.shape[2] * cam.shape[3])


def reactivation_loss(logits: Tensor, tags: Tensor, reduction: Reduction = "sum") -> Tensor:
    """Softmax cross-entropy: the feature of a class must be told from all other classes.

    Args:
        logits: (N, F, F); row c holds the scores of the feature of class c.
        tags: (N, F) in {0, 1}; rows of absent classes count nothing.
        reduction: Over the present classes of an image: sum, or their mean.

    Returns:
        Scalar, the mean over images; 0 without any tag.

    Source:
        ReCAM, Eq. 4 and 5 with Specification 4.9 (sum). The released code takes the mean
        over the present classes.
    """
    batch, classes = tags.shape
    target = torch.arange(classes, device=logits.device).expand(batch, classes)
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    per_image = (loss.view(batch, classes) * tags).sum(dim=1)
    if reduction == "mean":
        per_image = per_image / tags.sum(dim=1).clamp_min(1)
    return per_image.mean()
