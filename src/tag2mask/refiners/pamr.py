"""PAMR, the refiner that PAR grew out of: linear color differences, and no position kernel.

Every pixel looks at its eight neighbors at each dilation. A softmax over how much their colors
differ, in standard deviations of the neighborhood, says how much of each neighbor's probability
it takes; repeat.

Source:
    1-stage WSSS (arXiv 2005.08104), compared in the AFA supplement, Table 2; Specification
    4.4. PAR squares the difference, leaves the center out of the deviation and adds positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import RefinerConfig
from tag2mask.functional.stencil import shifted
from tag2mask.refiners.base import Refiner
from tag2mask.refiners.par import neighbor_offsets, par_iterate
from tag2mask.refiners.par_cpu import SPREAD_EPS


class PAMRConfig(RefinerConfig):
    """Settings of PAMR; the defaults are those of its paper's code."""

    name: str = "pamr"
    """Refiner: a file of the folder `refiners`."""
    dilations: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 2, 4, 8, 12, 24), min_length=1
    )
    """Distances in pixels at which the eight neighbors are taken."""
    iterations: int = Field(default=10, ge=0)
    """Rounds of averaging."""
    width: PositiveFloat = 0.1
    """Width of the color kernel, in standard deviations; larger blurs over edges."""


class PAMR(Refiner):
    """Pixel-adaptive mask refinement; one kernel per image serves all its stacks. No gradient.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 8, 12), 40, dtype=torch.uint8)
        >>> image[..., 6:] = 200  # a dark and a light half
        >>> right = torch.full((1, 1, 8, 12), 0.3)
        >>> right[..., 8:] = 0.8  # evidence that misses the edge by two pixels
        >>> refine = PAMR(PAMRConfig(iterations=4))
        >>> mask = refine(image, torch.cat([1 - right, right], dim=1)).argmax(dim=1)
        >>> mask[0, 0].tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """

    Config = PAMRConfig
    config: PAMRConfig

    @torch.no_grad()
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` by the (N, 3, H, W) `image`; float32, sums to 1 over C."""
        config = self.config
        kernel = pamr_kernel(image, config.dilations, config.width)
        maps = par_iterate(probs.flatten(1, 2), kernel, config.dilations, config.iterations)
        return maps.view(probs.shape)


def pamr_kernel(image: Tensor, dilations: Sequence[int], width: float) -> Tensor:
    """Compute how much every pixel takes of each of its K neighbors.

    Args:
        image: (N, 3, H, W) uint8 or float in [0, 255].
        dilations: Distances of the eight neighbors in pixels.
        width: Width of the kernel in standard deviations.

    Returns:
        (N, K, H, W) float32, K = 8 per dilation, sums over K to 1.

    Source:
        Specification 4.4: softmax of the mean over colors of -|dI| / (1e-8 + 0.1 sd), for
        colors in [0, 1]; sd is that of the nine pixels of every dilation together, in which the
        center so counts once per dilation.
    """
    offsets = neighbor_offsets(dilations)
    reach, pixels = max(dilations), 9 * len(dilations)
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        padded = F.pad(image, (reach,) * 4, mode="replicate")
        # Deviations of differences from the center: those of colors would round where all are near
        # one large value.
        mean, variance = torch.zeros_like(image), torch.zeros_like(image)
        for offset in offsets:
            mean += shifted(padded, reach, offset) - image
        mean /= pixels
        for offset in offsets:
            variance += (shifted(padded, reach, offset) - image).sub_(mean).square_()
        variance += len(dilations) * mean.square()
        inverse = 1 / (SPREAD_EPS + width * (variance / (pixels - 1)).sqrt_())
        logits = image.new_empty((image.shape[0], len(offsets), *image.shape[-2:]))
        for tap, offset in enumerate(offsets):
            gap = (shifted(padded, reach, offset) - image).abs_()
            logits[:, tap] = -gap.mul_(inverse).mean(dim=1)
        return logits.softmax(dim=1)
