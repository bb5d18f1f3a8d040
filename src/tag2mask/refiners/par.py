"""PAR, pixel-adaptive refinement: probabilities flow between pixels that look alike and lie near.

Every pixel looks at its eight neighbors at each dilation (48 by default). A softmax over color
differences, plus a small softmax over distances, says how much of each neighbor's probability it
takes; repeat.

Source:
    AFA (arXiv 2203.02664) and its supplement, Tables 2 and 3, whose rows are the switches of
    `ParConfig`; Specification 2.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import RefinerConfig
from tag2mask.functional.stencil import Offset, shifted
from tag2mask.refiners.base import Refiner
from tag2mask.refiners.par_cpu import LEAST_VARIANCE, SPREAD_EPS, cpu_iterate, cpu_kernel


class ParConfig(RefinerConfig):
    """Settings of PAR; the defaults are the best row of the AFA supplement, at 10 rounds."""

    name: str = "par"
    """Refiner: a file of the folder `refiners`."""
    dilations: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 2, 4, 8, 12, 24), min_length=1
    )
    """Distances in pixels at which the eight neighbors are taken."""
    iterations: int = Field(default=10, ge=0)
    """Rounds of averaging; 15 for COCO and in the ablation table."""
    w1: PositiveFloat = 0.3
    """Width of the color kernel, in standard deviations; larger blurs over edges."""
    w2: PositiveFloat = 0.3
    """Width of the position kernel, in standard deviations of the distances."""
    w3: float = Field(default=0.01, ge=0)
    """Weight of the position kernel beside the color kernel."""
    position: bool = True
    """Use the position kernel."""


class PAR(Refiner):
    """Pixel-adaptive refinement; one affinity per image serves all its stacks.

    Returns float32 whatever comes in, as a sum of 1 does not survive half precision; no gradient.
    """

    Config = ParConfig
    config: ParConfig

    @torch.no_grad()
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` by the (N, 3, H, W) `image`; float32, sums to 1 over C."""
        config = self.config
        kernel = par_kernel(image, config)
        maps = par_iterate(probs.flatten(1, 2), kernel, config.dilations, config.iterations)
        maps = maps.view(probs.shape)
        return maps / maps.sum(dim=2, keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def par_kernel(image: Tensor, config: ParConfig) -> Tensor:
    """Compute how much every pixel takes of each of its K neighbors.

    Args:
        image: (N, 3, H, W) uint8 or float in [0, 255].
        config: Dilations, widths and weights.

    Returns:
        (N, K, H, W) float32, K = 8 per dilation, dilations in order, neighbors as in
        `neighbor_offsets`. Sums over K to 1 + w3, or to 1 without the position kernel.

    Source:
        Specification 2.4. Departs from it where all neighbors share a channel's value: the
        formula divides by 1e-8 there, this takes its limit (see LEAST_VARIANCE).
    """
    offsets = neighbor_offsets(config.dilations)
    position = torch.zeros(len(offsets))
    if config.position:
        position = config.w3 * position_weights(config.dilations, config.w2)
    if image.device.type == "cpu":
        return cpu_kernel(image.detach(), offsets, config.w1, position)
    return torch_kernel(image, offsets, config.w1, position)


def par_iterate(maps: Tensor, kernel: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """Average maps over neighbors again and again, without renormalizing.

    Args:
        maps: (N, M, H, W), any range and float type.
        kernel: (N, K, H, W) from `par_kernel` with the same dilations.
        dilations: In pixels.
        iterations: Rounds; each multiplies the sum over classes by the kernel's row sum.

    Returns:
        (N, M, H, W) float32.
    """
    if maps.device.type == "cpu":
        return cpu_iterate(maps.detach(), kernel, dilations, iterations)
    return torch_iterate(maps, kernel, dilations, iterations)


def neighbor_offsets(dilations: Sequence[int]) -> list[Offset]:
    """(dy, dx) of the eight neighbors at each dilation, row by row, center left out."""
    ring = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    return [(d * dy, d * dx) for d in dilations for dy, dx in ring]


def position_weights(dilations: Sequence[int], w2: float) -> Tensor:
    """Softmax over the K neighbors of -(distance / (w2 * std of the distances))^2.

    The same at every pixel.

    Returns:
        (K,) float32, sums to 1.
    """
    distance = np.array([math.hypot(dy, dx) for dy, dx in neighbor_offsets(dilations)])
    logits = -((distance / (w2 * distance.std(ddof=1))) ** 2)
    return torch.from_numpy(logits).softmax(dim=0).float()


def torch_kernel(image: Tensor, offsets: Sequence[Offset], w1: float, position: Tensor) -> Tensor:
    """Compute `par_kernel` in plain torch, for accelerators; `position` is (K,), weighted."""
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        reach = max(dy for dy, _ in offsets)
        padded = F.pad(image, (reach,) * 4, mode="replicate")
        mean, variance = torch.zeros_like(image), torch.zeros_like(image)
        for offset in offsets:
            mean += shifted(padded, reach, offset)
        mean /= len(offsets)
        for offset in offsets:
            variance += (shifted(padded, reach, offset) - mean).square_()
        variance /= len(offsets) - 1
        inverse = 1 / (w1 * (variance.sqrt() + SPREAD_EPS))
        inverse *= variance > LEAST_VARIANCE
        logits = image.new_empty((image.shape[0], len(offsets), *image.shape[-2:]))
        for tap, offset in enumerate(offsets):
            step = (shifted(padded, reach, offset) - image).mul_(inverse)
            logits[:, tap] = -step.square_().mean(dim=1)
        return logits.softmax(dim=1).add_(position.to(logits).view(1, -1, 1, 1))


def torch_iterate(
    maps: Tensor, kernel: Tensor, dilations: Sequence[int], iterations: int
) -> Tensor:
    """Compute `par_iterate` in plain torch, for accelerators."""
    with torch.autocast(maps.device.type, enabled=False):
        here, kernel, reach = maps.float(), kernel.float(), max(dilations)
        offsets = neighbor_offsets(dilations)
        for _ in range(iterations):
            padded = F.pad(here, (reach,) * 4, mode="replicate")
            here = torch.zeros_like(here)
            for tap, offset in enumerate(offsets):
                here.addcmul_(kernel[:, tap : tap + 1], shifted(padded, reach, offset))
        return here
