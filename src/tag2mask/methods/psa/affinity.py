"""PSA's affinity: how alike the learned features of neighboring pixels are.

Source:
    PSA (arXiv 1803.10464), section 3.2; Specification 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tag2mask.functional.pair_affinity import inside
from tag2mask.functional.stencil import Offset, pair_windows


def feature_affinity(features: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Compare features of neighbors: exp(-mean over channels of |f_i - f_j|).

    Args:
        features: (N, D, h, w) float.
        offsets: The K neighbors.

    Returns:
        (N, K, h, w) in [0, 1], 0 for neighbors outside.

    Source:
        PSA, Eq. 2; Specification 4.3.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[0.0, 0.0, 2.0]]]])
        >>> feature_affinity(features, offsets=[(0, 1)]).round(decimals=3)
        tensor([[[[1.0000, 0.1350, 0.0000]]]])
    """
    difference: Tensor = _MeanDifference.apply(  # type: ignore[no-untyped-call]  # torch
        features, tuple(offsets)
    )
    return (-difference).exp() * inside(offsets, features)


class _MeanDifference(torch.autograd.Function):
    """Mean over channels of |f_i - f_j|: (N, D, h, w) to (N, K, h, w), 0 for neighbors outside.

    The backward pass recomputes the differences; storing them would need K times the memory of the
    features.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, offsets: tuple[Offset, ...]) -> Tensor:
        ctx.save_for_backward(features)
        ctx.offsets = offsets
        num, _, height, width = features.shape
        mean = features.new_zeros(num, len(offsets), height, width)
        for tap, offset in enumerate(offsets):
            pixel, neighbor = pair_windows(offset, (height, width))
            difference = (features[..., *pixel] - features[..., *neighbor]).abs_()
            mean[:, tap, *pixel] = difference.mean(dim=1)
        return mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        grad_features = torch.zeros_like(features)
        for tap, offset in enumerate(ctx.offsets):
            pixel, neighbor = pair_windows(offset, features.shape[-2:])
            sign = (features[..., *pixel] - features[..., *neighbor]).sign_()
            sign *= grad[:, tap : tap + 1, *pixel] / features.shape[1]
            grad_features[..., *pixel] += sign
            grad_features[..., *neighbor] -= sign
        return grad_features, None
