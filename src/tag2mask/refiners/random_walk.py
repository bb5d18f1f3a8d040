"""Random walk on color affinities: class probabilities propagate between similar nearby pixels.

1. The affinity of a pixel and each pixel at most `radius` away is exp(-|dI|^2 / 2 sigma^2): 1 with
   itself, 0 outside the image.
2. Columns are normalized. Each of `steps` steps replaces a pixel's probabilities by a weighted mean
   over its neighborhood.

Nothing is learned. For learned affinities see `functional.affinity.propagate` and
`functional.stencil.random_walk`.

Source:
    Specification 4.3 (random walks of PSA and IRN), with colors instead of a learned affinity, and
    6 (steps along a stencil instead of powers of a dense matrix).
"""

from __future__ import annotations

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from tag2mask.config.schema import RefinerConfig
from tag2mask.functional.stencil import color_affinity, disc_offsets, random_walk
from tag2mask.refiners.base import Refiner


class RandomWalkConfig(RefinerConfig):
    """Settings of the random walk."""

    name: str = "random_walk"
    """Refiner: a file of the folder `refiners`."""
    radius: int = Field(default=5, ge=1, le=64)
    """Largest distance of neighbors in pixels."""
    sigma: PositiveFloat = 10.0
    """Width of the color kernel in gray levels; larger values blur across edges."""
    steps: int = Field(default=20, ge=0, le=2**16)
    """Steps of the walk; more steps propagate farther."""


class RandomWalk(Refiner):
    """Propagate probabilities along color affinities of nearby pixels; float32, no gradient.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 8, 12), 40, dtype=torch.uint8)
        >>> image[..., 6:] = 200  # dark and bright half
        >>> right = torch.full((1, 1, 8, 12), 0.3)
        >>> right[..., 8:] = 0.8  # two pixels off the edge
        >>> refine = RandomWalk(RandomWalkConfig())
        >>> mask = refine(image, torch.cat([1 - right, right], dim=1)).argmax(dim=1)
        >>> mask[0, 0].tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """

    Config = RandomWalkConfig
    config: RandomWalkConfig

    @torch.no_grad()
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` with the (N, 3, H, W) `image`; see `Refiner.forward`."""
        config = self.config
        with torch.autocast(image.device.type, enabled=False):
            offsets = disc_offsets(config.radius)
            affinity = color_affinity(image.float(), offsets, config.sigma)
            refined = random_walk(probs.float().flatten(1, 2), affinity, offsets, config.steps)
        return refined.view(probs.shape)
