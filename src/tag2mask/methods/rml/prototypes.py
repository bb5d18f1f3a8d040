"""Class prototypes of a batch, and their mean similarity."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.reduction import sum_over_ranks

PrototypeKind = Literal["features", "cam_grid"]
GRID = 4
"""Side of the pooled CAM with `cam_grid`."""


def class_prototypes(
    cam: Tensor, features: Tensor, tags: Tensor, kind: PrototypeKind = "features", eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Compute one prototype per class from all images of the batch with its tag.

    Args:
        cam: (N, F, h, w) in [0, 1]. Gradients flow through it.
        features: (N, D, h, w) of the same size.
        tags: (N, F) in {0, 1}.
        kind: `features`: mean of the features, weighted by the CAM. `cam_grid`: the CAM pooled to
            4 x 4, which separates classes by position instead of appearance.
        eps: Avoids division by zero for an empty CAM.

    Returns:
        (F, D) prototypes, or (F, 16) with `cam_grid`; (F,) float, 1 for classes in the batch.

    Source:
        RML, Eq. 3; Specification R4: pooling a CAM to one number, as in the released code, makes
        every cosine 1. Most images have one class only, so classes are paired over the batch.
    """
    if kind == "features":
        total_weight = cam.flatten(2).sum(dim=2, keepdim=True) + eps
        tokens = features.flatten(2).transpose(1, 2).to(cam.dtype)
        pooled = cam.flatten(2) @ tokens / total_weight  # (N, F, D)
    else:
        pooled = F.adaptive_avg_pool2d(cam, GRID).flatten(2)
    count = sum_over_ranks(tags.sum(dim=0))
    total = sum_over_ranks((pooled * tags[:, :, None]).sum(dim=0))
    return total / count.clamp_min(1)[:, None], (count > 0).to(tags.dtype)


def mean_similarity(prototype: Tensor, present: Tensor) -> Tensor:
    """Average the positive cosine similarity of pairs of different classes in the batch.

    Args:
        prototype: (F, D).
        present: (F,) in {0, 1}, 1 for classes in the batch.

    Returns:
        Scalar in [0, 1]; 0 for fewer than two classes.

    Source:
        RML, Eq. 4; Specification R5: pairs of a class with itself are left out, and negative
        cosines count as 0.

    Example:
        >>> import torch
        >>> mean_similarity(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.ones(2)).item()
        0.0
    """
    unit = F.normalize(prototype, dim=1)
    pairs = present[:, None] * present[None, :]
    pairs = pairs - pairs.diagonal().diag()
    return ((unit @ unit.T).relu() * pairs).sum() / pairs.sum().clamp_min(1)
