"""SEAM's losses: maps of an image and of its small view should be each other's transforms.

Source:
    SEAM (arXiv 2004.04581), sections 3.2 and 3.4; Specification 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-5


def peak_normalized(cam: Tensor) -> Tensor:
    """Scale each (N, F, h, w) map to [0, 1] by its own range; differentiable throughout.

    Source:
        Specification 4.2: ReLU(ReLU(p) - min - 1e-5) / (max - min + 1e-5).
    """
    cam = cam.relu()
    least = cam.amin(dim=(2, 3), keepdim=True)
    most = cam.amax(dim=(2, 3), keepdim=True)
    return (cam - least - EPS).relu() / (most - least + EPS)


def strongest_class(score: Tensor) -> Tensor:
    """Keep the strongest class of each cell, and put background before: 1 - its score.

    Args:
        score: (N, F, h, w) in [0, 1].

    Returns:
        (N, 1 + F, h, w) in [0, 1]; where classes tie for the first place all of them stay.

    Source:
        Specification 4.2: bg = 1 - max, non-maximal classes zero.
    """
    most = score.amax(dim=1, keepdim=True)
    return torch.cat([1 - most, score.masked_fill(score < most, 0)], dim=1)


def equivariance_loss(large: Tensor, small: Tensor) -> Tensor:
    """ER: mean distance of (N, F, h, w) maps of both views; absent classes are zero in both.

    Source:
        SEAM, Eq. 8 with Specification 4.2.
    """
    return (large - small).abs().mean()


def cross_equivariance_loss(
    large: Tensor,
    small: Tensor,
    gathered_large: Tensor,
    gathered_small: Tensor,
    share: float = 0.2,
) -> Tensor:
    """ECR: the gathered maps of each view follow the plain maps of the other, where worst.

    Args:
        large: (N, F, h, w) normalized maps of the image, seen as the small view; no gradient.
        small: Likewise of the small view itself; no gradient.
        gathered_large: (N, 1 + F, h, w) normalized maps of the pixel correlation, background first.
        gathered_small: Likewise of the small view.
        share: Of all values of an image the furthest that count.

    Returns:
        Scalar, the sum over both directions.

    Source:
        SEAM, Eq. 9 with Specification 4.2: of the plain maps at each cell the strongest
        class alone, bg = 1 - max; mean of the top 20 %.
    """
    return _furthest(small, gathered_large, share) + _furthest(large, gathered_small, share)


def _furthest(plain: Tensor, gathered: Tensor, share: float) -> Tensor:
    gap = (strongest_class(plain.detach()) - gathered).abs().flatten(1)
    return gap.topk(max(1, int(gap.shape[1] * share)), dim=1).values.mean()


def min_pooling_loss(maps: Tensor, share: float = 0.25) -> Tensor:
    """Keep the weakest cells near zero, so that some background is always left.

    Args:
        maps: (N, F, h, w), absent classes zero.
        share: Of the cells those with the lowest maximum over classes.

    Returns:
        Scalar, mean of the ReLU of these maxima.

    Source:
        Specification 4.2.
    """
    strongest = maps.amax(dim=1).flatten(1)  # (N, L)
    count = max(1, int(strongest.shape[1] * share))
    return strongest.topk(count, dim=1, largest=False).values.relu().mean()
