"""PAMR, pixel-adaptive mask refinement, the predecessor of PAR.

Each pixel repeatedly averages the probabilities of its eight neighbors at each dilation. The
weights are a softmax over color differences, in standard deviations of the neighborhood.

Source:
    1Stage (arXiv 2005.08104), compared in the AFA supplement, Table 2; Specification 4.4. PAR
    squares the differences, excludes the center from the deviation and adds a position kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import Dilation, RefinerConfig
from tag2mask.functional.stencil import shifted
from tag2mask.refiners.base import Refiner
from tag2mask.refiners.par import neighbor_offsets, par_iterate
from tag2mask.refiners.par_cpu import DEVIATION_EPS


class PAMRConfig(RefinerConfig):
    """Settings of PAMR; the defaults are those of the released code."""

    name: str = "pamr"
    """Refiner: a file of the folder `refiners`."""
    dilations: tuple[Dilation, ...] = Field(
        default=(1, 2, 4, 8, 12, 24), min_length=1, max_length=64
    )
    """Distances of the eight neighbors in pixels."""
    iterations: int = Field(default=10, ge=0, le=2**16)
    """Rounds of averaging."""
    width: PositiveFloat = 0.1
    """Width of the color kernel in standard deviations; larger values blur across edges."""


class PAMR(Refiner):
    """Refine with PAMR; float32, no gradient. The kernel is computed once per image.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 8, 12), 40, dtype=torch.uint8)
        >>> image[..., 6:] = 200  # dark and bright half
        >>> right = torch.full((1, 1, 8, 12), 0.3)
        >>> right[..., 8:] = 0.8  # two pixels off the edge
        >>> refine = PAMR(PAMRConfig(iterations=4))
        >>> mask = refine(image, torch.cat([1 - right, right], dim=1)).argmax(dim=1)
        >>> mask[0, 0].tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """

    Config = PAMRConfig
    config: PAMRConfig
    exportable = True

    @torch.no_grad()
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` with the (N, 3, H, W) `image`; see `Refiner.forward`."""
        config = self.config
        kernel = pamr_kernel(image, config.dilations, config.width)
        maps = par_iterate(probs.flatten(1, 2), kernel, config.dilations, config.iterations)
        return maps.view(probs.shape)


def pamr_kernel(image: Tensor, dilations: Sequence[int], width: float) -> Tensor:
    """Compute the weights of each pixel's K neighbors.

    Args:
        image: (N, 3, H, W) uint8 or float in [0, 255].
        dilations: Distances of the eight neighbors in pixels.
        width: Width of the kernel in standard deviations.

    Returns:
        (N, K, H, W) float32, K = 8 per dilation, sums to 1 over K.

    Source:
        Specification 4.4: softmax of the mean over colors of -|dI| / (1e-8 + 0.1 sd), with colors
        in [0, 1]. The deviation sd is over the nine pixels of all dilations together, in which the
        center occurs once per dilation.
    """
    offsets = neighbor_offsets(dilations)
    reach, pixels = max(dilations), 9 * len(dilations)
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        padded = F.pad(image, (reach,) * 4, mode="replicate")
        # Deviations of differences from the center round less than those of nearly equal colors.
        mean, variance = torch.zeros_like(image), torch.zeros_like(image)
        for offset in offsets:
            mean += shifted(padded, reach, offset) - image
        mean /= pixels
        for offset in offsets:
            variance += (shifted(padded, reach, offset) - image).sub_(mean).square_()
        variance += len(dilations) * mean.square()
        inverse = 1 / (DEVIATION_EPS + width * (variance / (pixels - 1)).sqrt_())
        logits = image.new_empty((image.shape[0], len(offsets), *image.shape[-2:]))
        for tap, offset in enumerate(offsets):
            difference = (shifted(padded, reach, offset) - image).abs_()
            logits[:, tap] = -difference.mul_(inverse).mean(dim=1)
        return logits.softmax(dim=1)
