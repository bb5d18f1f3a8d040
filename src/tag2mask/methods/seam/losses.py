"""SEAM's losses: CAMs of an image and of its downscaled view should agree.

Source:
    SEAM (arXiv 2004.04581), sections 3.2 and 3.4; Specification 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-5


def peak_normalized(cam: Tensor) -> Tensor:
    """Scale each (N, F, h, w) class map to [0, 1] by its own range, differentiably.

    Source:
        Specification 4.2: ReLU(ReLU(p) - min - 1e-5) / (max - min + 1e-5).
    """
    cam = cam.relu()
    smallest = cam.amin(dim=(2, 3), keepdim=True)
    largest = cam.amax(dim=(2, 3), keepdim=True)
    return (cam - smallest - EPS).relu() / (largest - smallest + EPS)


def strongest_class(score: Tensor) -> Tensor:
    """Keep the strongest class of each pixel and prepend background, 1 - its score.

    Args:
        score: (N, F, h, w) in [0, 1].

    Returns:
        (N, 1 + F, h, w) in [0, 1]. In a tie, all strongest classes stay.

    Source:
        Specification 4.2: bg = 1 - max, non-maximal classes zero.

    Example:
        >>> import torch
        >>> strongest_class(torch.tensor([0.25, 0.75]).view(1, 2, 1, 1)).flatten()
        tensor([0.2500, 0.0000, 0.7500])
    """
    largest = score.amax(dim=1, keepdim=True)
    return torch.cat([1 - largest, score.masked_fill(score < largest, 0)], dim=1)


def equivariance_loss(large: Tensor, small: Tensor) -> Tensor:
    """Compute ER, the mean absolute difference of both views' CAMs.

    Args:
        large: (N, F, h, w) normalized CAM of the image, resized to the small view; absent classes
            are zero.
        small: (N, F, h, w) normalized CAM of the small view; absent classes are zero.

    Returns:
        Scalar in [0, 1].

    Source:
        SEAM, Eq. 8; Specification 4.2.
    """
    return (large - small).abs().mean()


def cross_equivariance_loss(
    large: Tensor,
    small: Tensor,
    refined_large: Tensor,
    refined_small: Tensor,
    share: float = 0.2,
) -> Tensor:
    """Compute ECR: the refined CAM of each view should equal the CAM of the other view.

    Args:
        large: (N, F, h, w) normalized CAM of the image, resized to the small view; no gradient.
        small: (N, F, h, w) normalized CAM of the small view; no gradient.
        refined_large: (N, 1 + F, h, w) normalized CAM of the image after pixel correlation,
            resized to the small view, background first.
        refined_small: The same for the small view.
        share: Fraction of the largest differences of an image that count.

    Returns:
        Scalar, the sum over both directions.

    Source:
        SEAM, Eq. 9; Specification 4.2: targets keep the strongest class of each pixel, bg = 1 -
        max; mean of the top 20 %.
    """
    return _top_difference(small, refined_large, share) + _top_difference(
        large, refined_small, share
    )


def _top_difference(target: Tensor, refined: Tensor, share: float) -> Tensor:
    difference = (strongest_class(target.detach()) - refined).abs().flatten(1)
    return difference.topk(max(1, int(difference.shape[1] * share)), dim=1).values.mean()


def min_pooling_loss(maps: Tensor, share: float = 0.25) -> Tensor:
    """Push the weakest pixels to zero, so that some background always remains.

    Args:
        maps: (N, F, h, w), absent classes zero.
        share: Fraction of the pixels, those with the smallest maxima over classes.

    Returns:
        Scalar, mean of the ReLU of these maxima.

    Source:
        Specification 4.2.
    """
    largest = maps.amax(dim=1).flatten(1)  # (N, L)
    count = max(1, int(largest.shape[1] * share))
    return largest.topk(count, dim=1, largest=False).values.relu().mean()
