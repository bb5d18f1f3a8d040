"""Affinity between positions of a feature map: labels, loss, propagation along it.

L = h * w positions are in raster order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.types import IGNORE

BAND_ROWS = 6
"""Rows that the CPU propagates at a time, so that their window stays in its cache."""


def _near(length: int, radius: int, device: torch.device) -> Tensor:
    """Mark the positions of a row or column that are at most `radius` apart: (length, length)."""
    position = torch.arange(length, device=device)
    return (position[:, None] - position[None, :]).abs() <= radius


@lru_cache(maxsize=8)
def _radius_mask(height: int, width: int, radius: int, device: torch.device) -> Tensor:
    near_y, near_x = _near(height, radius, device), _near(width, radius, device)
    pairs = near_y[:, None, :, None] & near_x[None, :, None, :]  # (h, w, h, w)
    return pairs.reshape(height * width, height * width)


def radius_mask(height: int, width: int, radius: int, device: torch.device | None = None) -> Tensor:
    """Mark the pairs of positions that lie within a square window of each other.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        radius: Largest row and column distance in positions.
        device: Device of the mask, CPU by default. The mask is built there once and cached.

    Returns:
        (L, L) bool, L = height * width. The diagonal is True.

    Source:
        AFA, section 3.3; Specification 2.6 (Chebyshev window).

    Example:
        >>> radius_mask(1, 4, radius=1).int().tolist()
        [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    """
    return _radius_mask(height, width, radius, torch.device("cpu") if device is None else device)


def affinity_label(label: Tensor, size: tuple[int, int], radius: int) -> Tensor:
    """Turn a label map into labels of pairs of positions.

    Args:
        label: (N, H, W) integer class map, 255 ignore.
        size: (h, w) of the affinity's map. Each position takes the label of its top-left pixel.
        radius: Pairs farther apart than this, in rows or columns, are ignored.

    Returns:
        (N, L, L) uint8: 1 same class (background included), 0 different classes, 255 ignore.

    Source:
        AFA, Eq. 4; Specification 2.6.

    Example:
        >>> import torch
        >>> affinity_label(torch.tensor([[[0, 1, 1, 255]]]), size=(1, 4), radius=2)[0]
        tensor([[  1,   0,   0, 255],
                [  0,   1,   1, 255],
                [  0,   1,   1, 255],
                [255, 255, 255, 255]], dtype=torch.uint8)
    """
    small = F.interpolate(label[:, None].float(), size=size, mode="nearest").flatten(1)
    small = small.to(torch.uint8)  # (N, L)
    # IGNORE has every bit set, so OR with it gives IGNORE.
    ignored = (small == IGNORE).to(torch.uint8) * IGNORE
    far = (~radius_mask(size[0], size[1], radius, label.device)).to(torch.uint8) * IGNORE
    pairs = (small[:, :, None] == small[:, None, :]).to(torch.uint8)
    return pairs | ignored[:, :, None] | ignored[:, None, :] | far


def affinity_loss(probs: Tensor, label: Tensor) -> Tensor:
    """Pull affinities of same-class pairs to 1 and those of different-class pairs to 0.

    Each of the two sets has half of the weight.

    Args:
        probs: (N, L, L) affinity in [0, 1].
        label: (N, L, L) from `affinity_label`.

    Returns:
        Scalar in [0, 1]; 0 if no pair is labeled.

    Source:
        RML, Eq. 13 with corrected signs (Specification R12): as printed, it rewards affinity
        between different classes. Counts are over the full batch, plus 1 (Specification 2.6).

    Example:
        >>> import torch
        >>> label = torch.tensor([[[1, 0], [0, 1]]], dtype=torch.uint8)
        >>> affinity_loss(torch.full((1, 2, 2), 0.25), label).item()  # (2 * 0.75 + 2 * 0.25) / 6
        0.3333333432674408
    """
    positive = (label == 1).to(probs.dtype)
    negative = (label == 0).to(probs.dtype)
    return 0.5 * (balanced_mean(1 - probs, positive) + balanced_mean(probs, negative))


def balanced_mean(value: Tensor, weight: Tensor) -> Tensor:
    """Divide the sum of value times 0/1 weight by the sum of weights + 1, over all processes."""
    return sum_over_ranks((value * weight).sum()) / (sum_over_ranks(weight.sum()) + 1)


def pool_pairs(pairs: Tensor, size: tuple[int, int], pooled: tuple[int, int]) -> Tensor:
    """Average an affinity matrix down to a coarser map, over queries first and then over keys.

    Args:
        pairs: (N, L, L) affinity over a map of `size`; probabilities, not logits.
        size: (h, w), h * w = L.
        pooled: (h', w') of the coarser map.

    Returns:
        (N, L', L'), L' = h' * w'.

    Source:
        Specification R11: resizing the matrix like an image would mix up the raster order.
    """
    batch, positions, _ = pairs.shape
    coarse = pooled[0] * pooled[1]
    query = pairs.transpose(1, 2).reshape(batch * positions, 1, *size)  # one query map per key
    query = F.adaptive_avg_pool2d(query, pooled).view(batch, positions, coarse)
    key = query.transpose(1, 2).reshape(batch * coarse, 1, *size)  # one key map per query
    return F.adaptive_avg_pool2d(key, pooled).view(batch, coarse, coarse)


def pool_pair_logits(logits: Tensor, size: tuple[int, int], pooled: tuple[int, int]) -> Tensor:
    """Compute the logits of an affinity that `pool_pairs` averages, exact where it is saturated.

    Args:
        logits: (N, L, L) affinity logits over a map of `size`.
        size: (h, w), h * w = L.
        pooled: (h', w') of the coarser map.

    Returns:
        (N, L', L'), L' = h' * w'. The sigmoid is `pool_pairs(logits.sigmoid(), size, pooled)`; the
        gradient does not vanish where that average rounds to 0 or 1.

    Source:
        Specification R9 and R11: averages of the probabilities of both outcomes, in the logarithm.
    """
    same = _pool_log_pairs(F.logsigmoid(logits), size, pooled)
    return same - _pool_log_pairs(F.logsigmoid(-logits), size, pooled)


def _pool_log_pairs(log_pairs: Tensor, size: tuple[int, int], pooled: tuple[int, int]) -> Tensor:
    """Compute log(pool_pairs(exp(log_pairs))) of (N, L, L) values without leaving the logarithm."""
    windows, log_weight = _pooling_windows(size, pooled, log_pairs.device)
    shape = log_pairs.shape[0], *windows.shape, log_pairs.shape[2]  # (N, L', K, L)
    query = log_pairs.index_select(1, windows.flatten()).view(shape)
    query = (query + log_weight[:, :, None]).logsumexp(dim=2)  # (N, L', L)
    key = query.index_select(2, windows.flatten()).view(*query.shape[:2], *windows.shape)
    return (key + log_weight).logsumexp(dim=3)


@lru_cache(maxsize=8)
def _pooling_windows(
    size: tuple[int, int], pooled: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """List the K positions that adaptive average pooling reads for each of L' results.

    Returns:
        (L', K) int64 positions of the map of `size`; (L', K) logarithms of their weights, minus
        infinity for the padding of small windows.
    """
    with torch.inference_mode(False):  # the cached tensors take part in training
        one_hot = torch.eye(size[0] * size[1]).view(-1, 1, *size)
        share = F.adaptive_avg_pool2d(one_hot, pooled).flatten(1).T  # (L', L)
        weight, windows = share.topk(int((share > 0).sum(dim=1).max()), dim=1)
        return windows.to(device), weight.log().to(device)


def propagate(scores: Tensor, affinity: Tensor, radius: int = 8, power: int = 2) -> Tensor:
    """Propagate class scores along the affinity by one step of a random walk.

    Args:
        scores: (N, C, h, w) at the size of the affinity's map, non-negative.
        affinity: (N, L, L) in [0, 1], L = h * w.
        radius: Half side of the square window, in positions.
        power: Elementwise exponent. Larger values keep scores closer to their origin.

    Returns:
        (N, C, h, w).

    Source:
        AFA, Eq. 5 and 6; Specification 2.7: columns are normalized by (sum + 0.1) and out =
        scores @ A, with no further matrix powers. Only the part of the matrix that a band of rows
        reaches is read, about half of it at 48 x 48 positions.

    Example:
        >>> import torch
        >>> affinity = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
        >>> scores = torch.tensor([[[[1.0, 0.0, 0.0]]]])
        >>> propagate(scores, affinity).round(decimals=2)  # 1 / (2 + 0.1)
        tensor([[[[0.4800, 0.4800, 0.0000]]]])
    """
    batch, _, height, width = scores.shape
    device = affinity.device
    rows = BAND_ROWS if device.type == "cpu" else height
    with torch.autocast(device.type, enabled=False):  # sums over hundreds of positions
        dtype = torch.promote_types(affinity.dtype, torch.float32)
        near_y, near_x = (_near(side, radius, device).to(dtype) for side in (height, width))
        # An extra row of ones yields the column sums in the same product.
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
    """Average the attention weights over all heads of several blocks.

    Args:
        attention: Raw q k^T of each block, (N, heads, L, L).
        head_dim: Channels per head; the softmax is over q k^T / sqrt(head_dim).

    Returns:
        (N, L, L), rows sum to 1.
    """
    heads = sum(block.shape[1] for block in attention)
    summed = [(block.float() * head_dim**-0.5).softmax(dim=-1).sum(dim=1) for block in attention]
    mean: Tensor = reduce(torch.add, summed) / heads
    return mean


def attention_affinity(attention: Tensor) -> Tensor:
    """Turn attention weights into an affinity without learned parameters.

    Each row is divided by its largest entry; then the matrix is averaged with its transpose.

    Args:
        attention: (N, L, L), rows sum to 1, as from `mean_attention`.

    Returns:
        (N, L, L) symmetric, in [0, 1].

    Source:
        AFA supplement, Figure 3c ("coarse MHSA"); the paper does not give the scaling. Without the
        division, entries near 1 / L would be negligible against the 0.1 in `propagate`.
    """
    relative = attention / attention.amax(dim=2, keepdim=True)
    return 0.5 * (relative + relative.transpose(1, 2))
