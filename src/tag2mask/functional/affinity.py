"""Pairs of grid cells: which belong together, by label; how far evidence spreads along them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.types import IGNORE

BAND_ROWS = 6
"""Rows of the grid that a processor propagates at once, so that their window stays in its cache."""


def _near(length: int, radius: int, device: torch.device) -> Tensor:
    """(length, length) bool: whether two places of a row or column are `radius` apart at most."""
    place = torch.arange(length, device=device)
    return (place[:, None] - place[None, :]).abs() <= radius


@lru_cache(maxsize=8)
def _radius_mask(height: int, width: int, radius: int, device: torch.device) -> Tensor:
    near_y, near_x = _near(height, radius, device), _near(width, radius, device)
    pairs = near_y[:, None, :, None] & near_x[None, :, None, :]  # (h, w, h, w)
    return pairs.reshape(height * width, height * width)


def radius_mask(height: int, width: int, radius: int, device: torch.device | None = None) -> Tensor:
    """Mark the pairs of cells of a grid that lie within a square window of each other.

    Args:
        height: Rows of the grid.
        width: Columns of the grid.
        radius: Largest row and column distance, in cells; a cell is near itself.
        device: Where the mask is wanted; it is built there once and kept.

    Returns:
        (L, L) bool, L = height * width, raster order.

    Source:
        AFA, section 3.3 with Specification 2.6 (Chebyshev window).
    """
    return _radius_mask(height, width, radius, torch.device("cpu") if device is None else device)


def affinity_label(label: Tensor, size: tuple[int, int], radius: int) -> Tensor:
    """Turn a label map into labels of pairs of cells.

    Args:
        label: (N, H, W) integer class map, 255 ignore.
        size: (h, w) of the grid; each cell takes the label of its top-left pixel.
        radius: Pairs further apart than this many cells, by rows or columns, are ignored.

    Returns:
        (N, L, L) uint8: 1 same class (background with background too), 0 different, 255 ignore.

    Source:
        AFA, Eq. 4 with Specification 2.6.
    """
    cells = F.interpolate(label[:, None].float(), size=size, mode="nearest").flatten(1)
    cells = cells.to(torch.uint8)  # (N, L)
    # 255 has every bit set: whatever is joined with it is ignored.
    ignored = (cells == IGNORE).to(torch.uint8) * IGNORE
    far = (~radius_mask(size[0], size[1], radius, label.device)).to(torch.uint8) * IGNORE
    pairs = (cells[:, :, None] == cells[:, None, :]).to(torch.uint8)
    return pairs | ignored[:, :, None] | ignored[:, None, :] | far


def affinity_loss(probs: Tensor, label: Tensor) -> Tensor:
    """Pull affinities of same-class pairs to 1, of different-class pairs to 0; each is half.

    Args:
        probs: (N, L, L) affinity in [0, 1].
        label: (N, L, L) from `affinity_label`.

    Returns:
        Scalar in [0, 1]; 0 where no pair is labeled.

    Source:
        RML, Eq. 13 with its signs mended (R12): as printed it rewards affinity between different
        classes. Counts are of the whole batch, plus 1 (Specification 2.6).
    """
    positive = (label == 1).to(probs.dtype)
    negative = (label == 0).to(probs.dtype)
    return 0.5 * (balanced_mean(1 - probs, positive) + balanced_mean(probs, negative))


def balanced_mean(value: Tensor, weight: Tensor) -> Tensor:
    """Sum of value times 0/1 weight over (their number + 1), over the batch of all processes."""
    return sum_over_ranks((value * weight).sum()) / (sum_over_ranks(weight.sum()) + 1)


def pool_pairs(pairs: Tensor, size: tuple[int, int], pooled: tuple[int, int]) -> Tensor:
    """Average a matrix over pairs of cells down to a coarser grid, query axes first, then key axes.

    Args:
        pairs: (N, L, L) over a grid of `size` in raster order; probabilities, not logits.
        size: (h, w), h * w = L.
        pooled: (h', w') of the coarser grid.

    Returns:
        (N, L', L').

    Source:
        R11: resizing the matrix as if it were a picture would mix up the raster order.
    """
    batch, cells, _ = pairs.shape
    coarse = pooled[0] * pooled[1]
    query = pairs.transpose(1, 2).reshape(batch * cells, 1, *size)  # one map of queries per key
    query = F.adaptive_avg_pool2d(query, pooled).view(batch, cells, coarse)
    key = query.transpose(1, 2).reshape(batch * coarse, 1, *size)  # one map of keys per query
    return F.adaptive_avg_pool2d(key, pooled).view(batch, coarse, coarse)


def propagate(scores: Tensor, affinity: Tensor, radius: int = 8, power: int = 2) -> Tensor:
    """Spread class scores over the grid by one step of a random walk.

    Args:
        scores: (N, C, h, w) on the grid of the affinity, non-negative.
        affinity: (N, L, L) in [0, 1], L = h * w.
        radius: Window of the walk, in cells.
        power: Element-wise exponent; larger keeps the walk closer to home.

    Returns:
        (N, C, h, w).

    Source:
        AFA, Eq. 5 and 6 with Specification 2.7: columns are normalized by (sum + 0.1), out
        = scores @ A, no further matrix powers. Of the matrix only what a band of rows can reach is
        read: at 48 x 48 cells about half.
    """
    batch, _, height, width = scores.shape
    device = affinity.device
    rows = BAND_ROWS if device.type == "cpu" else height
    with torch.autocast(device.type, enabled=False):  # sums of hundreds of cells
        dtype = torch.promote_types(affinity.dtype, torch.float32)
        near_y, near_x = (_near(side, radius, device).to(dtype) for side in (height, width))
        # A row of ones beside the scores collects the column sums in the same product.
        ones = scores.new_ones(batch, 1, height * width, dtype=dtype)
        source = torch.cat([scores.flatten(2).to(dtype), ones], dim=1)
        moved = torch.zeros_like(source)
        for top in range(0, height, rows):
            band, reach = slice(top, top + rows), slice(max(0, top - radius), top + rows + radius)
            window = near_y[band, None, reach, None] * near_x[None, :, None, :]
            start = slice(top * width, (top + rows) * width)
            end = slice(reach.start * width, reach.stop * width)
            near = affinity[:, start, end].to(dtype) * window.flatten(2).flatten(0, 1)
            moved[:, :, end] += source[:, :, start] @ near.pow(power)
        moved = moved[:, :-1] / (moved[:, -1:] + 0.1)
    return moved.view(scores.shape)


def mean_attention(attention: Sequence[Tensor], head_dim: int) -> Tensor:
    """Average what the heads of several blocks attend to.

    Args:
        attention: Raw q k^T of each block, (N, heads, L, L).
        head_dim: Channels per head; the softmax is taken over q k^T / sqrt(head_dim).

    Returns:
        (N, L, L), rows sum to 1: how much each cell takes of every other.
    """
    heads = sum(block.shape[1] for block in attention)
    summed = [(block.float() * head_dim**-0.5).softmax(dim=-1).sum(dim=1) for block in attention]
    mean: Tensor = reduce(torch.add, summed) / heads
    return mean


def attention_affinity(attention: Tensor) -> Tensor:
    """Read attention as an affinity, nothing learned.

    Args:
        attention: (N, L, L) rows summing to 1, as from `mean_attention`.

    Returns:
        (N, L, L) symmetric, in [0, 1]: each row over its largest entry, averaged with its mirror.

    Source:
        AFA supplement, Figure 3c ("coarse MHSA"); how it is scaled is not published. Without the
        division a row of L entries near 1 / L would vanish beside the 0.1 of the walk.
    """
    relative = attention / attention.amax(dim=2, keepdim=True)
    return 0.5 * (relative + relative.transpose(1, 2))
