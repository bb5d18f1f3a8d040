"""Affinities between each pixel and its near neighbours, and walks along them; no (L, L) matrix.

A stencil is a list of (dy, dx) offsets. What would be a row of a sparse matrix over pixels is here
one value per offset, so a step of a random walk is a sum of shifted, weighted maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Offset = tuple[int, int]


def disc_offsets(radius: int) -> list[Offset]:
    """(dy, dx) of all pixels at most `radius` away, the centre included, row by row."""
    side = range(-radius, radius + 1)
    return [(dy, dx) for dy in side for dx in side if dy * dy + dx * dx <= radius * radius]


def shifted(padded: Tensor, reach: int, offset: Offset) -> Tensor:
    """Each pixel's neighbour at `offset`, as a view of maps padded by `reach` on every side."""
    height, width = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    top, left = reach + offset[0], reach + offset[1]
    return padded[..., top : top + height, left : left + width]


def colour_affinity(image: Tensor, offsets: Sequence[Offset], sigma: float) -> Tensor:
    """Compare each pixel's colour with its neighbours'.

    Args:
        image: (N, D, H, W) float, any range.
        offsets: The K neighbours.
        sigma: Distance between colours, in units of the image, at which affinity is exp(-1/2).

    Returns:
        (N, K, H, W) exp(-|I_i - I_j|^2 / (2 sigma^2)) in [0, 1], 0 for neighbours outside the
        photo. Symmetric: the value of j at i + offset is that of i at j - offset.
    """
    reach = _reach(offsets)
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    inside = F.pad(torch.ones_like(image[:1, :1]), (reach,) * 4)
    affinity = image.new_empty((image.shape[0], len(offsets), *image.shape[-2:]))
    for tap, offset in enumerate(offsets):
        gap = (shifted(padded, reach, offset) - image).square_().sum(dim=1)
        affinity[:, tap] = gap.mul_(-0.5 / sigma**2).exp_() * shifted(inside, reach, offset)[:, 0]
    return affinity


def random_walk(maps: Tensor, affinity: Tensor, offsets: Sequence[Offset], steps: int) -> Tensor:
    """Carry maps along column-normalised affinities: maps @ T^steps, T_ij = A_ij / sum_i A_ij.

    Args:
        maps: (N, M, H, W), any range.
        affinity: (N, K, H, W), symmetric and non-negative, with a positive value for each pixel.
        offsets: The K neighbours.
        steps: Each is one product with the sparse matrix, here K shifted sums.

    Returns:
        (N, M, H, W); every value is a weighted mean of old ones, so classes still sum to 1.

    Source:
        Methods specification 4.3 (walks of PSA and IRN) and 6: steps along the stencil are the
        dense matrix's power, without the matrix.
    """
    reach = _reach(offsets)
    walk = affinity / affinity.sum(dim=1, keepdim=True)
    for _ in range(steps):
        padded = F.pad(maps, (reach,) * 4)
        maps = torch.zeros_like(maps)
        for tap, offset in enumerate(offsets):
            maps.addcmul_(walk[:, tap : tap + 1], shifted(padded, reach, offset))
    return maps


def _reach(offsets: Sequence[Offset]) -> int:
    return max(max(abs(dy), abs(dx)) for dy, dx in offsets)
