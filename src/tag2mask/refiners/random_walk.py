"""Random walk on the colours of the photo: evidence spreads between near pixels that look alike.

1. Every pixel is compared with all pixels at most `radius` away: affinity exp(-|dI|^2 / 2 sigma^2),
   1 with itself, 0 with what lies outside the photo.
2. Columns are normalised, so that a step replaces each pixel's probabilities by a weighted mean of
   its neighbourhood; `steps` such steps.

Nothing is learned. Walks along affinities that a network has learned are `propagate` of
`functional.affinity`.

Source:
    Methods specification 4.3 (the walks of PSA and IRN) with colours in place of a learned
    affinity, and 6 (steps along a stencil in place of powers of a dense matrix).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from tag2mask.functional.stencil import colour_affinity, disc_offsets, random_walk
from tag2mask.recipe import Positive, RefinerConfig
from tag2mask.refiners.base import Refiner


class RandomWalkConfig(RefinerConfig):
    """Settings of the walk."""

    name: str = "random_walk"
    """Refiner: a file of the folder `refiners`."""
    radius: int = Field(default=5, ge=1)
    """Farthest neighbour in pixels."""
    sigma: Positive = 10.0
    """Difference between colours, in grey levels, up to which evidence passes; larger blurs over
    edges."""
    steps: int = Field(default=20, ge=0)
    """Steps of the walk; more carry evidence farther."""


class RandomWalk(Refiner):
    """Random walk on colour affinities of near pixels; float32, no gradient.

    Example:
        >>> import torch
        >>> photo = torch.full((1, 3, 8, 12), 40, dtype=torch.uint8)
        >>> photo[..., 6:] = 200  # a dark and a light half
        >>> right = torch.full((1, 1, 8, 12), 0.3)
        >>> right[..., 8:] = 0.8  # evidence that misses the edge by two pixels
        >>> refine = RandomWalk(RandomWalkConfig())
        >>> mask = refine(photo, torch.cat([1 - right, right], dim=1)).argmax(dim=1)
        >>> mask[0, 0].tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """

    Config = RandomWalkConfig
    config: RandomWalkConfig

    @torch.no_grad()
    def refine(self, image: Tensor, prob: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `prob` by the (N, 3, H, W) `image`; float32, sums to 1 over C."""
        config = self.config
        with torch.autocast(image.device.type, enabled=False):
            offsets = disc_offsets(config.radius)
            affinity = colour_affinity(image.float(), offsets, config.sigma)
            moved = random_walk(prob.float().flatten(1, 2), affinity, offsets, config.steps)
        return moved.view(prob.shape)
