"""From a map of class evidence to one number per class, by other ways than the mean.

Gated pyramid pooling (AEFT): the map weighs itself by a pyramid of its own means. Softmax masks
(1Stage): the classes and a constant background share each pixel, and each class is averaged under
its mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.cam import upsample

Parts = Literal["both", "positive", "negative"]
"""Which evidence a score is made of: for and against the class, or one of them alone."""
LEVELS = (2, 4, 8, 16)
"""Sides of the pyramid's grids, coarse to fine."""


def pyramid(cam: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
    """Average a map over ever finer grids, each brought back to the map's own grid.

    A coarse grid is averaged from the next finer one where all cells of that are equally large, so
    that the map itself is mostly read once.

    Args:
        cam: (N, F, h, w), any sign.
        levels: Sides k of the grids, rising.

    Returns:
        One (N, F, h, w) per level, in the order of `levels`.

    Source:
        AEFT, section 3.1 with Specification 4.1: P_k = up(mean over k x k cells), bilinear.
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
    """Blend two levels of the pyramid, each weighted pixel by pixel, apart for either sign.

    Args:
        coarse: (N, F, h, w), any sign.
        fine: (N, F, h, w), any sign.
        weight: Kernel that turns the positive parts of both levels, and likewise the negative ones,
            into one weight each: (4, 2 F, 3, 3), its first two rows for the positive parts. (2,
            2 F, 3, 3) gates the positive parts alone and leaves the negative ones at full weight.

    Returns:
        (N, F, h, w), half the weighted sum.

    Source:
        AEFT, Eq. 4 with Specification 4.1; the kernel of two rows is the supplement's
        beta = 1 (section 1.2). Both signs in one grouped convolution.
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
    """Convolve with 3 x 3 kernels of very few outputs, zeros beyond the border.

    One product gives what every cell adds to each of its neighbors, and these are summed up:
    several times faster on a processor than its convolutions, which are made for many outputs.

    Args:
        maps: (N, groups * D, h, w).
        weight: (groups * D', D, 3, 3).
        groups: Parts of the channels that do not see each other.

    Returns:
        (N, groups * D', h, w).
    """
    batch, _, height, width = maps.shape
    outputs, depth = weight.shape[:2]
    # What a cell adds to its upper left neighbor is what that one sees at its lower right.
    taps = weight.flip(2, 3).view(groups, outputs // groups, depth, 9).transpose(2, 3)
    given = taps.reshape(groups, -1, depth) @ maps.reshape(batch, groups, depth, -1)
    summed: Tensor = F.fold(given.flatten(1, 2), (height, width), kernel_size=3, padding=1)
    return summed


def gated_pyramid(cam: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Blend the levels of a map's pyramid from coarse to fine.

    Args:
        cam: (N, F, h, w), any sign.
        weights: Kernel of each gate, see `gate`: one less than there are levels.

    Returns:
        (N, F, h, w), any sign: how much each pixel is to count for its class.

    Source:
        AEFT, section 3.1: P^_4 = G(P_2, P_4), P^_8 = G(P^_4, P_8), P^_16 = G(P^_8, P_16).
    """
    blend, *finer = pyramid(cam)
    for fine, weight in zip(finer, weights, strict=True):
        blend = gate(blend, fine, weight)
    return blend


def attended_score(cam: Tensor, attention: Tensor, parts: Parts = "both") -> Tensor:
    """Score classes by a map where its attention agrees with it in sign.

    Args:
        cam: (N, F, h, w), any sign.
        attention: (N, F, h, w), any sign.
        parts: both: agreement on presence adds, agreement on absence subtracts. positive: the first
            alone, so that no logit is below 0. negative: the second alone, no logit is above 0.

    Returns:
        (N, F) logits.

    Source:
        AEFT, Eq. 5; the parts alone: supplement, section 1.2.
    """
    score = torch.zeros_like(cam[:, :, 0, 0])
    if parts != "negative":
        score = score + (cam.relu() * attention.relu()).mean(dim=(2, 3))
    if parts != "positive":
        score = score - ((-cam).relu() * (-attention).relu()).mean(dim=(2, 3))
    return score


def softmax_masks(cam: Tensor, background: float = 1.0) -> Tensor:
    """Share each pixel out among the classes and a background of constant score.

    Args:
        cam: (N, F, h, w) scores, any sign.
        background: Score of the background; larger makes smaller masks.

    Returns:
        (N, 1 + F, h, w), sums to 1, background first.

    Source:
        1Stage (Araslanov and Roth, 2020), section 3.1 with Specification 4.4.
    """
    level = torch.full_like(cam[:, :1], background)
    return torch.cat([level, cam], dim=1).softmax(dim=1)


def weighted_score(cam: Tensor, masks: Tensor) -> Tensor:
    """Average scores under their masks; a small mask counts less (nGWP).

    Args:
        cam: (N, F, h, w) scores, any sign.
        masks: (N, F, h, w) in [0, 1], the foreground of `softmax_masks`.

    Returns:
        (N, F).

    Source:
        1Stage, Eq. 2 with Specification 4.4: sum m x / (1 + sum m).
    """
    return (masks * cam).sum(dim=(2, 3)) / (1 + masks.sum(dim=(2, 3)))


def size_penalty(masks: Tensor, power: float = 3.0, floor: float = 0.01) -> Tensor:
    """Lower the score of classes whose mask is small: a focal penalty on size.

    Args:
        masks: (N, F, h, w) in [0, 1], the foreground of `softmax_masks`.
        power: Larger spares masks of middling size.
        floor: Keeps an empty mask finite: its penalty is log(floor).

    Returns:
        (N, F), log(floor) for an empty mask, about 0 for a large one; is added to `weighted_score`.

    Source:
        1Stage, Eq. 4 with Specification 4.4: (1 - mean m)^3 log(0.01 + mean m).
    """
    share = masks.mean(dim=(2, 3))
    return (1 - share) ** power * (floor + share).log()
