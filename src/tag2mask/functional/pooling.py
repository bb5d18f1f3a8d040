"""Pooling of CAMs to class logits, other than global average pooling.

Gated pyramid pooling (GPP, AEFT) weighs a map by an attention map built from a pyramid of its own
averages. Normalized global weighted pooling (nGWP, 1Stage) averages each class under its softmax
mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.cam import upsample

Parts = Literal["both", "positive", "negative"]
"""Which activations a score uses: both signs, or only one."""
LEVELS = (2, 4, 8, 16)
"""Numbers k of regions per side of the levels, coarse to fine, for the paper's map of 40 x 40."""


def pyramid(cam: Tensor, levels: Sequence[int]) -> list[Tensor]:
    """Average a map over k x k regions for each level and resize each result to the map's size.

    A level is averaged from the next finer one if all regions of that have the same size, so that
    the map itself is usually read once.

    Args:
        cam: (N, F, h, w), any sign.
        levels: Numbers k of regions per side, ascending.

    Returns:
        One (N, F, h, w) map per level, in the order of `levels`.

    Source:
        AEFT, section 3.1; Specification 4.1: P_k = up(mean over k x k regions), bilinear.
    """
    size = (cam.shape[-2], cam.shape[-1])
    pooled: list[Tensor] = []
    source, side = cam, 0
    for level in reversed(levels):
        if side and (side % level or any(length % side for length in size)):
            source = cam
        source, side = F.adaptive_avg_pool2d(source, level), level
        pooled.append(upsample(source, size))
    return pooled[::-1]


def gate(coarse: Tensor, fine: Tensor, weight: Tensor) -> Tensor:
    """Blend two levels of the pyramid with learned weights per pixel, separately for each sign.

    Args:
        coarse: (N, F, h, w), any sign.
        fine: (N, F, h, w), any sign.
        weight: Convolution kernel that computes one gate per level. (4, 2 F, 3, 3): two outputs for
            the positive parts of both levels, then two for the negative parts. (2, 2 F, 3, 3):
            gates for the positive parts only; the negative parts have weight 1.

    Returns:
        (N, F, h, w), half the weighted sum.

    Source:
        AEFT, Eq. 4; Specification 4.1. The kernel with two outputs is beta = 1 of the supplement,
        section 1.2. One grouped convolution handles both signs.
    """
    both = torch.cat([coarse, fine], dim=1)
    positive = both.relu()
    parts = torch.cat([positive, positive - both], dim=1)  # (N, 4 F, h, w)
    groups = weight.shape[0] // 2
    gates = narrow_convolution(parts[:, : groups * both.shape[1]], weight, groups).sigmoid()
    batch, channels, height, width = coarse.shape
    parts = parts.view(batch, 4, channels, height, width)  # coarse +, fine +, coarse -, fine -
    gated = parts[:, : 2 * groups] * gates[:, :, None]
    against = gated[:, 2:] if groups == 2 else parts[:, 2:]
    blend: Tensor = 0.5 * (gated[:, :2].sum(dim=1) - against.sum(dim=1))
    return blend


def narrow_convolution(maps: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolve with 3 x 3 kernels that have very few output channels, with zero padding.

    One matrix product computes what every pixel adds to each of its neighbors, and a fold sums the
    contributions. On a CPU this is several times faster than `conv2d`, which is optimized for many
    outputs.

    Args:
        maps: (N, groups * D, h, w).
        weight: (groups * D', D, 3, 3).
        groups: Number of channel groups, as in `conv2d`.

    Returns:
        (N, groups * D', h, w).
    """
    batch, _, height, width = maps.shape
    outputs, depth = weight.shape[:2]
    # What a pixel adds to its upper left neighbor has the weight at the kernel's lower right.
    taps = weight.flip(2, 3).view(groups, outputs // groups, depth, 9).transpose(2, 3)
    added = taps.reshape(groups, -1, depth) @ maps.reshape(batch, groups, depth, -1)
    summed: Tensor = F.fold(added.flatten(1, 2), (height, width), kernel_size=3, padding=1)
    return summed


def gated_pyramid(cam: Tensor, weights: Sequence[Tensor], levels: Sequence[int] = LEVELS) -> Tensor:
    """Compute the attention map of a CAM by blending the levels of its pyramid, coarse to fine.

    Args:
        cam: (N, F, h, w), any sign.
        weights: Kernel of each gate (see `gate`), one fewer than there are levels.
        levels: See `pyramid`. If the finest level is as fine as the map, the attention is little
            more than the map itself.

    Returns:
        (N, F, h, w), any sign.

    Source:
        AEFT, section 3.1: P^_4 = G(P_2, P_4), P^_8 = G(P^_4, P_8), P^_16 = G(P^_8, P_16).

    Example:
        >>> import torch
        >>> cam = torch.randn(2, 5, 24, 32)
        >>> weights = [torch.randn(4, 2 * 5, 3, 3) for _ in LEVELS[1:]]
        >>> attention = gated_pyramid(cam, weights)
        >>> attention.shape, attended_score(cam, attention).shape
        (torch.Size([2, 5, 24, 32]), torch.Size([2, 5]))
    """
    blend, *finer = pyramid(cam, levels)
    for fine, weight in zip(finer, weights, strict=True):
        blend = gate(blend, fine, weight)
    return blend


def attended_score(cam: Tensor, attention: Tensor, parts: Parts = "both") -> Tensor:
    """Score each class by the pixels at which the CAM and its attention agree in sign.

    Args:
        cam: (N, F, h, w), any sign.
        attention: (N, F, h, w), any sign.
        parts: `both` adds where both are positive and subtracts where both are negative.
            `positive` only adds (logits at least 0); `negative` only subtracts (logits at most 0).

    Returns:
        (N, F) logits.

    Source:
        AEFT, Eq. 5; single parts: supplement, section 1.2.

    Example:
        >>> import torch
        >>> cam = torch.tensor([[[[2.0, -1.0, 0.0, 3.0]]]])
        >>> attention = torch.tensor([[[[1.0, -2.0, 5.0, -1.0]]]])
        >>> attended_score(cam, attention)  # (2 * 1 - 1 * 2) / 4
        tensor([[0.]])
    """
    score = torch.zeros_like(cam[:, :, 0, 0])
    if parts != "negative":
        score = score + (cam.relu() * attention.relu()).mean(dim=(2, 3))
    if parts != "positive":
        score = score - ((-cam).relu() * (-attention).relu()).mean(dim=(2, 3))
    return score


def softmax_masks(cam: Tensor, background: float = 1.0) -> Tensor:
    """Compute the softmax over a constant background score and the classes.

    Args:
        cam: (N, F, h, w) scores, any sign.
        background: Score of the background. Larger values give smaller masks.

    Returns:
        (N, 1 + F, h, w), sums to 1, background first.

    Source:
        1Stage (arXiv 2005.08104), section 3.1; Specification 4.4.
    """
    score = torch.full_like(cam[:, :1], background)
    return torch.cat([score, cam], dim=1).softmax(dim=1)


def weighted_score(cam: Tensor, masks: Tensor) -> Tensor:
    """Average scores under their masks, with less weight for small masks (nGWP).

    Args:
        cam: (N, F, h, w) scores, any sign.
        masks: (N, F, h, w) in [0, 1], the foreground of `softmax_masks`.

    Returns:
        (N, F).

    Source:
        1Stage, Eq. 2; Specification 4.4: sum m x / (1 + sum m).

    Example:
        >>> import torch
        >>> cam = torch.tensor([[[[4.0, 1.0]]]])
        >>> weighted_score(cam, masks=torch.tensor([[[[1.0, 0.0]]]]))  # 4 / (1 + 1)
        tensor([[2.]])
    """
    return (masks * cam).sum(dim=(2, 3)) / (1 + masks.sum(dim=(2, 3)))


def size_penalty(masks: Tensor, power: float = 3.0, floor: float = 0.01) -> Tensor:
    """Compute a focal penalty for small masks, to add to `weighted_score`.

    Args:
        masks: (N, F, h, w) in [0, 1], the foreground of `softmax_masks`.
        power: Larger values lower the penalty of masks of medium size.
        floor: Keeps the penalty of an empty mask finite: it is log(floor).

    Returns:
        (N, F) from log(floor) for an empty mask to about 0 for a large one.

    Source:
        1Stage, Eq. 4; Specification 4.4: (1 - mean m)^3 log(0.01 + mean m).
    """
    share = masks.mean(dim=(2, 3))
    return (1 - share) ** power * (floor + share).log()
