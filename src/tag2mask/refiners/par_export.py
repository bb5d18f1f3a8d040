"""PAR in few, large operations, for `torch.export` and ONNX.

Neighbors come from convolutions whose kernels select one pixel each, so a graph has hundreds of
operations rather than thousands; the values are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.refiners.par_cpu import DEVIATION_EPS, MIN_VARIANCE

NEIGHBORS = 8


def export_kernel(image: Tensor, dilations: Sequence[int], w1: float, position: Tensor) -> Tensor:
    """Compute `par_kernel`; `position` (K,) includes its weight."""
    image = image.float()
    weight = _single_taps(image)
    ring = torch.cat([_neighbors(image, weight, dilation) for dilation in dilations], dim=2)
    count = NEIGHBORS * len(dilations)
    deviation = ring - ring.mean(dim=2, keepdim=True)
    variance = deviation.square().sum(dim=2, keepdim=True) / (count - 1)
    inverse = (variance > MIN_VARIANCE) / (w1 * (variance.sqrt() + DEVIATION_EPS))
    difference = (ring - image.unsqueeze(2)) * inverse
    color = (-difference.square().mean(dim=1)).softmax(dim=1)
    return color + position.view(1, -1, 1, 1)


def export_iterate(
    maps: Tensor, kernel: Tensor, dilations: Sequence[int], iterations: int
) -> Tensor:
    """Compute `par_iterate`."""
    current = maps.float()
    weight = _single_taps(current)
    parts = [part.unsqueeze(1) for part in torch.split(kernel, NEIGHBORS, dim=1)]
    for _ in range(iterations):
        sums = [
            (_neighbors(current, weight, dilation) * part).sum(dim=2)
            for dilation, part in zip(dilations, parts, strict=True)
        ]
        current = torch.stack(sums).sum(dim=0)
    return current


def _single_taps(maps: Tensor) -> Tensor:
    """Return the (8 M, 1, 3, 3) kernels that each select a neighbor of one of M maps."""
    taps = torch.eye(NEIGHBORS + 1)
    taps = torch.cat([taps[: NEIGHBORS // 2], taps[NEIGHBORS // 2 + 1 :]])  # without the center
    return taps.view(NEIGHBORS, 1, 3, 3).repeat(maps.shape[1], 1, 1, 1).to(maps)


def _neighbors(maps: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """(N, M, 8, H, W) neighbors of (N, M, H, W) maps at one dilation, in `neighbor_offsets`' order.

    Pixels outside have the value of the nearest one inside.
    """
    channels = maps.shape[1]
    padded = F.pad(maps, (dilation,) * 4, mode="replicate")
    found = F.conv2d(padded, weight, dilation=dilation, groups=channels)
    return found.view(len(maps), channels, NEIGHBORS, *maps.shape[-2:])
