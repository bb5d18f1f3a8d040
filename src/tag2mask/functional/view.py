"""The downscaled second view of a crop: one transformation for images, maps and affinities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.affinity import pool_pair_logits, pool_pairs
from tag2mask.functional.cam import upsample

GRID_PX = 32
"""Default multiple of the small view's sides, divisible by every stride of the networks."""


@dataclass(frozen=True, slots=True)
class DownscaledView:
    """The transformation A(.) between both views: downscaling by a factor.

    Another transformation, such as a flip, is a class with the same methods.

    Source:
        RML, section 3.1 (A downsamples by 0.3); Specification R2: bilinear, corners not aligned,
        side 32 * round(0.3 S / 32): 320 -> 96, 512 -> 160. SEAM (Specification 4.2) aligns corners
        and rounds to whole pixels.
    """

    factor: float = 0.3
    antialias: bool = False
    align_corners: bool = False
    """Align the centers of the corner pixels when resizing."""
    multiple_px: int = GRID_PX
    """Sides of the small view are multiples of this."""

    def size(self, size: tuple[int, int] | torch.Size) -> tuple[int, int]:
        """Return the (H, W) of the small view of an (H, W) image."""
        step = self.multiple_px
        height, width = (max(1, round(self.factor * side / step)) * step for side in size)
        return height, width

    def image(self, image: Tensor) -> Tensor:
        """Resize (N, 3, H, W) normalized images to the small view."""
        return F.interpolate(
            image,
            size=self.size(image.shape[-2:]),
            mode="bilinear",
            align_corners=self.align_corners,
            antialias=self.antialias,
        )

    def maps(self, maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        """Resize (N, D, h, w) maps of the large view to a map size of the small view."""
        if not self.align_corners:
            return upsample(maps, size)
        return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)

    def valid(self, valid: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        """Resize an (N, H, W) bool mask to (N, h, w) float, 0 on padding.

        A position counts if the top-left pixel of its block is real (`nearest`; Specification R2).
        """
        return F.interpolate(valid[:, None].float(), size=tuple(size), mode="nearest")[:, 0]

    def pairs(self, pairs: Tensor, size: tuple[int, int], small: tuple[int, int]) -> Tensor:
        """Average (N, L, L) values of pairs of the large view to (N, L', L') of the small view."""
        return pool_pairs(pairs, size, small)

    def pair_logits(self, logits: Tensor, size: tuple[int, int], small: tuple[int, int]) -> Tensor:
        """Pool an affinity given by its (N, L, L) logits; return the (N, L', L') logits."""
        return pool_pair_logits(logits, size, small)
