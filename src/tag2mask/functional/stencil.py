"""Affinities between each pixel and its near neighbors, and walks along them; no (L, L) matrix.

A stencil is a list of (dy, dx) offsets. What would be a row of a sparse matrix over pixels is here
one value per offset, so a step of a random walk is a sum of shifted, weighted maps. An affinity is
symmetric: half of the offsets tell all of it (`both_directions`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Offset = tuple[int, int]
Window = tuple[slice, slice]
"""Rows and columns."""


def disc_offsets(radius: int) -> list[Offset]:
    """(dy, dx) of all pixels at most `radius` away, the center included, row by row."""
    side = range(-radius, radius + 1)
    return [(dy, dx) for dy in side for dx in side if dy * dy + dx * dx <= radius * radius]


def half_disc_offsets(radius: int) -> list[Offset]:
    """(dy, dx) of the pixels less than `radius` away, one of each two opposite ones, row by row.

    Source:
        Specification 4.3: 34 offsets for radius 5, 152 for radius 10.
    """
    return [
        offset for offset in disc_offsets(radius) if offset > (0, 0) and _square(offset) < radius**2
    ]


def shifted(padded: Tensor, reach: int, offset: Offset) -> Tensor:
    """Each pixel's neighbor at `offset`, as a view of maps padded by `reach` on every side."""
    height, width = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    top, left = reach + offset[0], reach + offset[1]
    return padded[..., top : top + height, left : left + width]


def pair_windows(offset: Offset, size: Sequence[int]) -> tuple[Window, Window]:
    """Where a pixel and its neighbor at `offset` are both inside (h, w) maps: here, and there."""
    here, there = [], []
    for step, side in zip(offset, size, strict=True):
        first, second = max(0, -step), max(0, step)
        here.append(slice(first, max(first, side - second)))
        there.append(slice(second, max(second, side - first)))
    return (here[0], here[1]), (there[0], there[1])


def both_directions(
    affinity: Tensor, offsets: Sequence[Offset]
) -> tuple[Tensor, tuple[Offset, ...]]:
    """Complete a symmetric affinity that is known one way: add the way back, and 1 with itself.

    Args:
        affinity: (N, K, H, W) of each pixel with its neighbor at each offset.
        offsets: The K offsets, no two of them opposite, none of them (0, 0).

    Returns:
        (N, 1 + 2 K, H, W), 0 with what lies outside, and its offsets: the center, then `offsets`,
        then their opposites.
    """
    batch, taps, height, width = affinity.shape
    whole = affinity.new_zeros(batch, 1 + 2 * taps, height, width)
    whole[:, 0] = 1
    for tap, offset in enumerate(offsets):
        (rows, columns), (rows_there, columns_there) = pair_windows(offset, (height, width))
        known = affinity[:, tap, rows, columns]
        whole[:, 1 + tap, rows, columns] = known
        whole[:, 1 + taps + tap, rows_there, columns_there] = known
    return whole, ((0, 0), *offsets, *((-dy, -dx) for dy, dx in offsets))


def color_affinity(image: Tensor, offsets: Sequence[Offset], sigma: float) -> Tensor:
    """Compare each pixel's color with its neighbors'.

    Args:
        image: (N, D, H, W) float, any range.
        offsets: The K neighbors.
        sigma: Distance between colors, in units of the image, at which affinity is exp(-1/2).

    Returns:
        (N, K, H, W) exp(-|I_i - I_j|^2 / (2 sigma^2)) in [0, 1], 0 for neighbors outside the
        image. Symmetric: the value of j at i + offset is that of i at j - offset.
    """
    reach = _reach(offsets)
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    inside = F.pad(torch.ones_like(image[:1, :1]), (reach,) * 4)
    affinity = image.new_empty((image.shape[0], len(offsets), *image.shape[-2:]))
    for tap, offset in enumerate(offsets):
        gap = (shifted(padded, reach, offset) - image).square_().sum(dim=1)
        affinity[:, tap] = gap.mul_(-0.5 / sigma**2).exp_() * shifted(inside, reach, offset)[:, 0]
    return affinity


@torch.no_grad()
def random_walk(maps: Tensor, affinity: Tensor, offsets: Sequence[Offset], steps: int) -> Tensor:
    """Carry maps along column-normalized affinities: maps @ T^steps, T_ij = A_ij / sum_i A_ij.

    Args:
        maps: (N, M, H, W), any range.
        affinity: (N, K, H, W), symmetric and non-negative, 0 for neighbors outside, with a
            positive value for each pixel.
        offsets: The K neighbors.
        steps: Each is one product with the sparse matrix, here K shifted sums.

    Returns:
        (N, M, H, W), no gradient; every value is a weighted mean of old ones, so classes still sum
        to 1.

    Source:
        Specification 4.3 (walks of PSA and IRN) and 6: steps along the stencil are the
        dense matrix's power, without the matrix.
    """
    walk = affinity / affinity.sum(dim=1, keepdim=True)
    if maps.device.type == "cpu" and maps.dtype == walk.dtype == torch.float32:
        # Few walk, and the compiler takes a while to import.
        from tag2mask.functional.stencil_cpu import cpu_walk

        return cpu_walk(maps, walk, offsets, steps)
    return torch_walk(maps, walk, offsets, steps)


def torch_walk(maps: Tensor, walk: Tensor, offsets: Sequence[Offset], steps: int) -> Tensor:
    """`random_walk` on any device, its weights normalized: few large operations per step."""
    height, width = maps.shape[-2:]
    y = torch.arange(height, device=maps.device)[:, None]
    x = torch.arange(width, device=maps.device)
    # Neighbors outside have weight 0; they only must be somewhere.
    near = [
        (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1) for dy, dx in offsets
    ]
    index = torch.stack(near).flatten()
    weight = walk.flatten(2)[:, None]  # (N, 1, K, L)
    moved = maps.flatten(2)
    for _ in range(steps):
        taken = moved[:, :, index].view(*moved.shape[:2], len(offsets), -1)  # (N, M, K, L)
        # Differences, as in the compiled loops: their rounding does not add up over level ground.
        moved = moved + ((taken - moved.unsqueeze(2)) * weight).sum(dim=2)
    return moved.view(maps.shape)


def _reach(offsets: Sequence[Offset]) -> int:
    return max(max(abs(dy), abs(dx)) for dy, dx in offsets)


def _square(offset: Offset) -> int:
    return offset[0] ** 2 + offset[1] ** 2
