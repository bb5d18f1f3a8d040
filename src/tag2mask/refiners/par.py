"""PAR, pixel-adaptive refinement: probabilities propagate between nearby pixels of similar color.

Each pixel repeatedly averages the probabilities of its eight neighbors at each dilation (48 by
default). The weights are a softmax over color differences plus a small softmax over distances.

Source:
    AFA (arXiv 2203.02664) and its supplement, Tables 2 and 3, whose rows are settings of
    `ParConfig`; Specification 2.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import Dilation, RefinerConfig
from tag2mask.functional.sizes import is_exporting
from tag2mask.functional.stencil import Offset, shifted
from tag2mask.refiners.base import Refiner
from tag2mask.refiners.par_cpu import DEVIATION_EPS, MIN_VARIANCE, cpu_iterate, cpu_kernel
from tag2mask.refiners.par_export import export_iterate, export_kernel


class ParConfig(RefinerConfig):
    """Settings of PAR; the defaults are the best row of AFA's supplement, with 10 iterations."""

    name: str = "par"
    """Refiner: a file of the folder `refiners`."""
    dilations: tuple[Dilation, ...] = Field(
        default=(1, 2, 4, 8, 12, 24), min_length=1, max_length=64
    )
    """Distances of the eight neighbors in pixels."""
    iterations: int = Field(default=10, ge=0, le=2**16)
    """Rounds of averaging; the paper uses 15 for COCO and in its ablation table."""
    w1: PositiveFloat = 0.3
    """Width of the color kernel in standard deviations; larger values blur across edges."""
    w2: PositiveFloat = 0.3
    """Width of the position kernel in standard deviations of the distances."""
    w3: float = Field(default=0.01, ge=0)
    """Weight of the position kernel relative to the color kernel."""
    position: bool = True
    """Use the position kernel."""


class PAR(Refiner):
    """Refine with PAR. The kernel is computed once per image.

    Returns float32, because sums of 1 do not survive half precision; no gradient.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 8, 12), 40, dtype=torch.uint8)
        >>> image[..., 6:] = 200  # dark and bright half
        >>> right = torch.full((1, 1, 8, 12), 0.3)
        >>> right[..., 8:] = 0.8  # two pixels off the edge
        >>> refine = PAR(ParConfig())
        >>> mask = refine(image, torch.cat([1 - right, right], dim=1)).argmax(dim=1)
        >>> mask[0, 0].tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """

    Config = ParConfig
    config: ParConfig
    exportable = True

    @torch.no_grad()
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` with the (N, 3, H, W) `image`; see `Refiner.forward`."""
        config = self.config
        kernel = par_kernel(image, config)
        maps = par_iterate(probs.flatten(1, 2), kernel, config.dilations, config.iterations)
        maps = maps.view(probs.shape)
        return maps / maps.sum(dim=2, keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def par_kernel(image: Tensor, config: ParConfig) -> Tensor:
    """Compute the weights of each pixel's K neighbors.

    Args:
        image: (N, 3, H, W) uint8 or float in [0, 255].
        config: Dilations, widths and weights.

    Returns:
        (N, K, H, W) float32, K = 8 per dilation, in the order of `neighbor_offsets`. Sums over K to
        1 + w3, or to 1 without the position kernel.

    Source:
        Specification 2.4. Departs where all neighbors have the same value in a channel: the formula
        divides by 1e-8 there; this function uses its limit (see MIN_VARIANCE).
    """
    offsets = neighbor_offsets(config.dilations)
    w3 = config.w3 if config.position else 0.0
    if is_exporting():  # without the cache, where a recorded tensor would reach other calls
        position = (w3 * position_weights(config.dilations, config.w2)).to(image.device)
        return export_kernel(image, config.dilations, config.w1, position)
    position = _position_term(config.dilations, config.w2, w3, image.device)
    if image.device.type == "cpu":
        return cpu_kernel(image.detach(), offsets, config.w1, position)
    return torch_kernel(image, offsets, config.w1, position)


def par_iterate(maps: Tensor, kernel: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """Average maps over neighbors repeatedly, without renormalizing.

    Args:
        maps: (N, M, H, W), any range and float dtype.
        kernel: (N, K, H, W) from `par_kernel` with the same dilations.
        dilations: Distances of the eight neighbors in pixels.
        iterations: Number of rounds. Each multiplies the sum over classes by the sum of the kernel.

    Returns:
        (N, M, H, W) float32.
    """
    if is_exporting():
        return export_iterate(maps, kernel, dilations, iterations)
    if maps.device.type == "cpu":
        return cpu_iterate(maps.detach(), kernel, dilations, iterations)
    return torch_iterate(maps, kernel, dilations, iterations)


def neighbor_offsets(dilations: Sequence[int]) -> list[Offset]:
    """List the (dy, dx) of the eight neighbors at each dilation, row by row, without the center."""
    ring = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    return [(d * dy, d * dx) for d in dilations for dy, dx in ring]


def position_weights(dilations: Sequence[int], w2: float) -> Tensor:
    """Compute the softmax over K neighbors of -(distance / (w2 * std of the distances))^2.

    Returns:
        (K,) float32, sums to 1.
    """
    distance = np.array([math.hypot(dy, dx) for dy, dx in neighbor_offsets(dilations)])
    logits = -((distance / (w2 * distance.std(ddof=1))) ** 2)
    return torch.from_numpy(logits).softmax(dim=0).float()


@lru_cache(maxsize=8)
def _position_term(
    dilations: tuple[int, ...], w2: float, w3: float, device: torch.device
) -> Tensor:
    """Compute (K,) `w3` times `position_weights` on a device, once: a copy waits for the device."""
    return (w3 * position_weights(dilations, w2)).to(device)


def torch_kernel(image: Tensor, offsets: Sequence[Offset], w1: float, position: Tensor) -> Tensor:
    """Compute `par_kernel` in plain torch for accelerators; `position` (K,) includes its weight."""
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
        inverse = 1 / (w1 * (variance.sqrt() + DEVIATION_EPS))
        inverse *= variance > MIN_VARIANCE
        logits = image.new_empty((image.shape[0], len(offsets), *image.shape[-2:]))
        for tap, offset in enumerate(offsets):
            difference = (shifted(padded, reach, offset) - image).mul_(inverse)
            logits[:, tap] = -difference.square_().mean(dim=1)
        return logits.softmax(dim=1).add_(position.to(logits).view(1, -1, 1, 1))


def torch_iterate(
    maps: Tensor, kernel: Tensor, dilations: Sequence[int], iterations: int
) -> Tensor:
    """Compute `par_iterate` in plain torch for accelerators."""
    with torch.autocast(maps.device.type, enabled=False):
        current, kernel, reach = maps.float(), kernel.float(), max(dilations)
        offsets = neighbor_offsets(dilations)
        for _ in range(iterations):
            padded = F.pad(current, (reach,) * 4, mode="replicate")
            current = torch.zeros_like(current)
            for tap, offset in enumerate(offsets):
                current.addcmul_(kernel[:, tap : tap + 1], shifted(padded, reach, offset))
        return current
