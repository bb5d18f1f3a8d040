"""ReCAM's class features and their softmax loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["sum", "mean"]
"""Reduction over the present classes of an image."""


def class_features(cam: Tensor, features: Tensor, eps: float = 1e-5) -> Tensor:
    """Average the features of each class, weighted by its CAM.

    Args:
        cam: (N, F, h, w) raw signed CAM. Gradients flow through it and its peak.
        features: (N, D, h, w) of the same size.
        eps: Keeps the weights of an empty CAM at 0.

    Returns:
        (N, F, D): mean over space of ReLU(cam) / peak times the features.

    Source:
        ReCAM, Eq. 3; Specification 4.9. One matrix product per image avoids storing (F, D, h, w)
        products.
    """
    mask = cam.relu()
    mask = mask / (mask.amax(dim=(2, 3), keepdim=True) + eps)
    pooled: Tensor = mask.flatten(2) @ features.flatten(2).transpose(1, 2).to(mask.dtype)
    return pooled / (cam.shape[2] * cam.shape[3])


def reactivation_loss(logits: Tensor, tags: Tensor, reduction: Reduction = "sum") -> Tensor:
    """Compute the softmax cross-entropy of each present class's feature.

    Args:
        logits: (N, F, F); row c has the scores of the feature of class c.
        tags: (N, F) in {0, 1}; rows of absent classes are left out.
        reduction: Sum or mean over the present classes of an image.

    Returns:
        Scalar, the mean over images; 0 without tags.

    Source:
        ReCAM, Eq. 4 and 5; Specification 4.9 (sum). The released code averages over the present
        classes.

    Example:
        >>> import torch
        >>> reactivation_loss(torch.zeros(1, 4, 4), tags=torch.tensor([[1, 0, 0, 1]])).item()
        2.7725887298583984
    """
    batch, classes = tags.shape
    target = torch.arange(classes, device=logits.device).expand(batch, classes)
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    per_image = (loss.view(batch, classes) * tags).sum(dim=1)
    if reduction == "mean":
        per_image = per_image / tags.sum(dim=1).clamp_min(1)
    return per_image.mean()
