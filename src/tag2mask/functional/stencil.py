"""Affinities between pixels and their neighbors, and random walks along them.

A stencil is a list of (dy, dx) offsets. A row of the sparse (L, L) matrix over pixels becomes one
value per offset, and a step of a random walk becomes a sum of shifted, weighted maps; no (L, L)
matrix exists. An affinity is symmetric, so half of the offsets define it (`both_directions`).
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
    """List the (dy, dx) of all pixels at most `radius` away, including (0, 0), row by row.

    Example:
        >>> disc_offsets(1)
        [(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)]
    """
    side = range(-radius, radius + 1)
    return [(dy, dx) for dy in side for dx in side if dy * dy + dx * dx <= radius * radius]


def half_disc_offsets(radius: int) -> list[Offset]:
    """List the (dy, dx) of the pixels less than `radius` away, one of each opposite pair.

    Source:
        Specification 4.3: 34 offsets for radius 5, 152 for radius 10.

    Example:
        >>> half_disc_offsets(2)
        [(0, 1), (1, -1), (1, 0), (1, 1)]
    """
    return [
        offset for offset in disc_offsets(radius) if offset > (0, 0) and _square(offset) < radius**2
    ]


def shifted(padded: Tensor, reach: int, offset: Offset) -> Tensor:
    """Return each pixel's neighbor at `offset`, as a slice of maps padded by `reach` pixels."""
    height, width = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    top, left = reach + offset[0], reach + offset[1]
    return padded[..., top : top + height, left : left + width]


def pair_windows(offset: Offset, size: Sequence[int]) -> tuple[Window, Window]:
    """Return the windows of the pixels and of their neighbors at `offset`, if both are inside.

    Args:
        offset: (dy, dx) of the neighbor.
        size: (h, w) of the maps.

    Example:
        >>> pixel, neighbor = pair_windows((0, 1), size=(1, 4))
        >>> pixel[1], neighbor[1]  # columns 0 to 2 have their neighbors in columns 1 to 3
        (slice(0, 3, None), slice(1, 4, None))
    """
    pixel, neighbor = [], []
    for step, side in zip(offset, size, strict=True):
        first, second = max(0, -step), max(0, step)
        pixel.append(slice(first, max(first, side - second)))
        neighbor.append(slice(second, max(second, side - first)))
    return (pixel[0], pixel[1]), (neighbor[0], neighbor[1])


def both_directions(
    affinity: Tensor, offsets: Sequence[Offset]
) -> tuple[Tensor, tuple[Offset, ...]]:
    """Complete a symmetric affinity given for half of the offsets; each pixel has 1 with itself.

    Args:
        affinity: (N, K, H, W) between each pixel and its neighbor at each offset.
        offsets: The K offsets: no two are opposite, none is (0, 0).

    Returns:
        (N, 1 + 2 K, H, W) affinity, 0 for neighbors outside, and its offsets: (0, 0), then
        `offsets`, then their opposites.
    """
    batch, taps, height, width = affinity.shape
    complete = affinity.new_zeros(batch, 1 + 2 * taps, height, width)
    complete[:, 0] = 1
    for tap, offset in enumerate(offsets):
        pixel, neighbor = pair_windows(offset, (height, width))
        value = affinity[:, tap, *pixel]
        complete[:, 1 + tap, *pixel] = value
        complete[:, 1 + taps + tap, *neighbor] = value
    return complete, ((0, 0), *offsets, *((-dy, -dx) for dy, dx in offsets))


def color_affinity(image: Tensor, offsets: Sequence[Offset], sigma: float) -> Tensor:
    """Compare each pixel's color with those of its neighbors.

    Args:
        image: (N, D, H, W) float, any range.
        offsets: The K neighbors.
        sigma: Color distance, in units of the image, at which the affinity is exp(-1/2).

    Returns:
        (N, K, H, W) exp(-|I_i - I_j|^2 / (2 sigma^2)) in [0, 1], 0 for neighbors outside.

    Example:
        >>> import torch
        >>> image = torch.tensor([[[[40.0, 40.0, 200.0]]]])
        >>> color_affinity(image, offsets=[(0, 1)], sigma=10.0)
        tensor([[[[1., 0., 0.]]]])
    """
    reach = _reach(offsets)
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    inside = F.pad(torch.ones_like(image[:1, :1]), (reach,) * 4)
    affinity = image.new_empty((image.shape[0], len(offsets), *image.shape[-2:]))
    for tap, offset in enumerate(offsets):
        distance = (shifted(padded, reach, offset) - image).square_().sum(dim=1)
        similarity = distance.mul_(-0.5 / sigma**2).exp_()
        affinity[:, tap] = similarity * shifted(inside, reach, offset)[:, 0]
    return affinity


@torch.no_grad()
def random_walk(maps: Tensor, affinity: Tensor, offsets: Sequence[Offset], steps: int) -> Tensor:
    """Propagate maps along the affinity: maps @ T^steps with T_ij = A_ij / sum_i A_ij.

    Args:
        maps: (N, M, H, W), any range.
        affinity: (N, K, H, W) non-negative and symmetric, 0 for neighbors outside. Each pixel has
            at least one positive value.
        offsets: The K neighbors.
        steps: Number of steps. Each costs K shifted sums.

    Returns:
        (N, M, H, W), no gradient. Values are weighted means of the input, so classes that sum to 1
        still do.

    Source:
        Specification 4.3 (random walks of PSA and IRN) and 6: steps along the stencil equal the
        power of the dense matrix.

    Example:
        >>> import torch
        >>> affinity, offsets = both_directions(torch.tensor([[[[1.0, 0.0, 0.0]]]]), [(0, 1)])
        >>> cam = torch.tensor([[[[0.8, 0.0, 0.6]]]])
        >>> random_walk(cam, affinity, offsets, steps=10)  # the first two pixels share
        tensor([[[[0.4000, 0.4000, 0.6000]]]])
    """
    walk = affinity / affinity.sum(dim=1, keepdim=True)
    if maps.device.type == "cpu" and maps.dtype == walk.dtype == torch.float32:
        # Imported here because few runs need it and numba takes long to import.
        from tag2mask.functional.stencil_cpu import cpu_walk

        return cpu_walk(maps, walk, offsets, steps)
    return torch_walk(maps, walk, offsets, steps)


def torch_walk(maps: Tensor, walk: Tensor, offsets: Sequence[Offset], steps: int) -> Tensor:
    """Compute `random_walk` with normalized weights on any device, in few operations per step."""
    height, width = maps.shape[-2:]
    y = torch.arange(height, device=maps.device)[:, None]
    x = torch.arange(width, device=maps.device)
    # Neighbors outside have weight 0; clamping only keeps their indices valid.
    neighbors = [
        (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1) for dy, dx in offsets
    ]
    index = torch.stack(neighbors).flatten()
    weight = walk.flatten(2)[:, None]  # (N, 1, K, L)
    values = maps.flatten(2)
    for _ in range(steps):
        gathered = values[:, :, index].view(*values.shape[:2], len(offsets), -1)  # (N, M, K, L)
        # Differences, as in `stencil_cpu`, whose rounding errors do not add up in constant regions.
        values = values + ((gathered - values.unsqueeze(2)) * weight).sum(dim=2)
    return values.view(maps.shape)


def _reach(offsets: Sequence[Offset]) -> int:
    return max(max(abs(dy), abs(dx)) for dy, dx in offsets)


def _square(offset: Offset) -> int:
    return offset[0] ** 2 + offset[1] ** 2
