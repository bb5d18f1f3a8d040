"""Evidence gathered from the cells whose features look alike, without a matrix of all pairs.

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
"""Cells whose pairs with all others exist at one time."""
EPS = 1e-5


def correlation_input(cam: Tensor) -> Tensor:
    """Turn raw evidence into what cells hand to their likes; no gradient.

    Args:
        cam: (N, F, h, w) raw signed evidence.

    Returns:
        (N, 1 + F, h, w) in [0, 1], background first: each class by its own peak, at each cell the
        strongest class alone.

    Source:
        Specification 4.2: ReLU, divided by the maximum, bg = 1 - max, other classes zero.
    """
    cam = cam.detach().relu()
    return strongest_class(cam / (cam.amax(dim=(2, 3), keepdim=True) + EPS))


def correlate(score: Tensor, features: Tensor, columns: int = COLUMNS) -> Tensor:
    """Give every cell the mean score of all cells, weighted by how alike their features are.

    Args:
        score: (N, C, h, w); gets no gradient.
        features: (N, D, h, w), any length per cell.
        columns: Cells whose pairs are held at one time; fewer need less memory.

    Returns:
        (N, C, h, w) float32, out_j = sum_i score_i K_ij / (sum_i K_ij + 1e-5) with
        K = ReLU(f^T f) of unit features.

    Source:
        SEAM, Eq. 5 and 6 with Specification 4.2. The ReLU stands between the two products,
        so that their order cannot be changed; but columns do not depend on each other: the L x L
        matrix is made and used up in slices, forwards and backwards. The divisor is the same sum
        over a score of 1.
    """
    with torch.autocast(score.device.type, enabled=False):
        flat, cells = score.detach().flatten(2).float(), features.flatten(2).float()
        unit = cells / (torch.linalg.vector_norm(cells, dim=1, keepdim=True) + EPS)
        values = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)
        gathered: Tensor = _RectifiedProduct.apply(values, unit, columns)  # type: ignore[no-untyped-call]  # torch has no types here
        return (gathered[:, :-1] / (gathered[:, -1:] + EPS)).view(score.shape)


class _RectifiedProduct(torch.autograd.Function):
    """values ReLU(unit^T unit); backwards the pairs are made anew.

    With G = values^T g the gradient of the pairs, and the pairs symmetric, that of the features is
    unit ((G + G^T) where unit^T unit > 0): two large products where the plain graph has two too,
    plus the renewed one, but G + G^T of a slice is a single product of 2 C rows.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, unit: Tensor, columns: int) -> Tensor:
        """(N, C, L) values and (N, D, L) features to (N, C, L)."""
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
        """Give the gradient of the features alone."""
        values, unit = ctx.saved_tensors
        rows = unit.transpose(1, 2)
        left = torch.cat([values, upstream[0]], dim=1).transpose(1, 2)  # (N, L, 2 C)
        right = torch.cat([upstream[0], values], dim=1)  # (N, 2 C, L)
        parts = []
        slices = (torch.split(one, ctx.columns, dim=2) for one in (unit, right))
        for part, other in zip(*slices, strict=True):
            apart = torch.bmm(rows, part) <= 0  # (N, L, columns)
            parts.append(unit @ torch.bmm(left, other).masked_fill_(apart, 0))
        return None, torch.cat(parts, dim=2), None
