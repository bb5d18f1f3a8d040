"""SEAM's pixel correlation: CAMs averaged over similar pixels, without a matrix of all pairs.

Source:
    SEAM (arXiv 2004.04581), section 3.3; Specification 4.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tag2mask.methods.seam.losses import strongest_class

COLUMNS = 1024
"""Pixels whose similarities to all others are in memory at a time."""
EPS = 1e-5


def correlation_input(cam: Tensor) -> Tensor:
    """Normalize a CAM and keep the strongest class of each pixel; no gradient.

    Args:
        cam: (N, F, h, w) raw signed CAM.

    Returns:
        (N, 1 + F, h, w) in [0, 1], background first. Each class is divided by its peak; at each
        pixel, all but the strongest class are 0.

    Source:
        Specification 4.2: ReLU, divided by the maximum, bg = 1 - max, other classes zero.
    """
    cam = cam.detach().relu()
    return strongest_class(cam / (cam.amax(dim=(2, 3), keepdim=True) + EPS))


def correlate(score: Tensor, features: Tensor, columns: int = COLUMNS) -> Tensor:
    """Average the scores over all pixels, weighted by the similarity of their features.

    Args:
        score: (N, C, h, w); receives no gradient.
        features: (N, D, h, w), any norm.
        columns: Pixels whose similarities are in memory at a time; fewer need less memory.

    Returns:
        (N, C, h, w) float32: out_j = sum_i score_i K_ij / (sum_i K_ij + 1e-5) with
        K = ReLU(f^T f) of unit features.

    Source:
        SEAM, Eq. 5 and 6; Specification 4.2. The ReLU prevents reordering the two products, but
        the columns are independent: the L x L matrix is computed and used in slices, in both
        passes. The divisor is the same sum with a score of 1.

    Example:
        >>> import torch
        >>> score = torch.tensor([[[[1.0, 0.0, 0.0]]]])
        >>> features = torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]])
        >>> correlate(score, features).round(decimals=2)
        tensor([[[[0.5000, 0.5000, 0.0000]]]])
    """
    with torch.autocast(score.device.type, enabled=False):
        flat_score, flat_features = score.detach().flatten(2).float(), features.flatten(2).float()
        norm = torch.linalg.vector_norm(flat_features, dim=1, keepdim=True)
        unit = flat_features / (norm + EPS)
        values = torch.cat([flat_score, torch.ones_like(flat_score[:, :1])], dim=1)
        sums: Tensor = _RectifiedProduct.apply(values, unit, columns)  # type: ignore[no-untyped-call]  # torch has no types here
        return (sums[:, :-1] / (sums[:, -1:] + EPS)).view(score.shape)


class _RectifiedProduct(torch.autograd.Function):
    """Compute values ReLU(unit^T unit); the backward pass recomputes the similarities.

    With G = values^T g, the gradient of the similarities, and because they are symmetric, the
    gradient of the features is unit ((G + G^T) where unit^T unit > 0). G + G^T of a slice is one
    product with 2 C rows.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, unit: Tensor, columns: int) -> Tensor:
        """Multiply (N, C, L) values by the similarities of (N, D, L) features to (N, C, L)."""
        ctx.save_for_backward(values, unit)
        ctx.columns = columns
        rows = unit.transpose(1, 2)
        parts = [
            values @ torch.bmm(rows, part).relu_() for part in torch.split(unit, columns, dim=2)
        ]
        return torch.cat(parts, dim=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the features; the other inputs have none."""
        values, unit = ctx.saved_tensors
        rows = unit.transpose(1, 2)
        left = torch.cat([values, upstream[0]], dim=1).transpose(1, 2)  # (N, L, 2 C)
        right = torch.cat([upstream[0], values], dim=1)  # (N, 2 C, L)
        parts = []
        slices = (torch.split(one, ctx.columns, dim=2) for one in (unit, right))
        for part, right_part in zip(*slices, strict=True):
            dissimilar = torch.bmm(rows, part) <= 0  # (N, L, columns)
            parts.append(unit @ torch.bmm(left, right_part).masked_fill_(dissimilar, 0))
        return None, torch.cat(parts, dim=2), None
