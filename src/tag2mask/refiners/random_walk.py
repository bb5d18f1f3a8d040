"""Random walk on the colors of the image: evidence spreads between near pixels that look alike.

1. Every pixel is compared with all pixels at most `radius` away: affinity exp(-|dI|^2 / 2 sigma^2),
   1 with itself, 0 with what lies outside the image.
2. Columns are normalized, so that a step replaces each pixel's probabilities by a weighted mean of
   its neighborhood; `steps` such steps.

Nothing is learned. Walks along affinities that a network has learned are `propagate` of
`functional.affinity`.

Source:
    Specification 4.3 (the walks of PSA and IRN) with colors in place of a learned
    affinity, and 6 (steps along a stencil in place of powers of a dense matrix).
"""

from __future__ import annotations

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from tag2mask.config.schema import RefinerConfig
from tag2mask.functional.stencil import color_affinity, disc_offsets, random_walk
from tag2mask.refiners.base import Refiner


class RandomWalkConfig(RefinerConfig):
    """Settings of the walk."""

    name: str = "random_walk"
    """Refiner: a file of the folder `refiners`."""
    radius: int = Field(default=5, ge=1)
    """Farthest neighbor in pixels."""
    sigma: PositiveFloat = 10.0
    """Difference between colors, in gray levels, up to which evidence passes; larger blurs over
    edges."""
    steps: int = Field(default=20, ge=0)
    """Steps of the walk; more carry evidence farther."""


class RandomWalk(Refiner):
    """Random walk on color affinities of near pixels; float32, no gradient.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 8, 12), 40, dtype=torch.uint8)
        >>> image[..., 6:] = 200  # a dark and a light half
        >>> right = torch.full((1, 1, 8, 12), 0.3)
        >>> right[..., 8:] = 0.8  # evidence that misses the edge by two pixels
        >>> refine = RandomWalk(RandomWalkConfig())
        >>> mask = refine(image, torch.cat([1 - right, right], dim=1)).argmax(dim=1)
        >>> mask[0, 0].tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """

    Config = RandomWalkConfig
    config: RandomWalkConfig

    @torch.no_grad()
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` by the (N, 3, H, W) `image`; float32, sums to 1 over C."""
        config = self.config
        with torch.autocast(image.device.type, enabled=False):
            offsets = disc_offsets(config.radius)
            affinity = color_affinity(image.float(), offsets, config.sigma)
            moved = random_walk(probs.float().flatten(1, 2), affinity, offsets, config.steps)
        return moved.view(probs.shape)
