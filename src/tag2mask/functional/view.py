"""The second view of mutual learning: one transformation of images, maps and pair matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.affinity import pool_pairs
from tag2mask.functional.cam import upsample

GRID_PX = 32
"""Usual multiple of the small view's sides, so that no network grid is ragged."""


@dataclass(frozen=True, slots=True)
class DownscaledView:
    """A(.): shrink by a factor. Flips or rotations would be classes with the same methods.

    Source:
        RML, section 3.1 (A is down-sampling by 0.3) with Specification R2: bilinear, pixel
        centers aligned, side 32 * round(0.3 S / 32): 320 -> 96, 512 -> 160. SEAM (4.2) aligns
        corners and rounds to whole pixels.
    """

    factor: float = 0.3
    antialias: bool = False
    align_corners: bool = False
    """Put corner pixels on corner pixels."""
    multiple_px: int = GRID_PX
    """Sides of the small view are multiples of this."""

    def size(self, size: tuple[int, int] | torch.Size) -> tuple[int, int]:
        """(H, W) of the small view of an (H, W) image."""
        step = self.multiple_px
        height, width = (max(1, round(self.factor * side / step)) * step for side in size)
        return height, width

    def image(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) normalized image -> its small view."""
        return F.interpolate(
            image,
            size=self.size(image.shape[-2:]),
            mode="bilinear",
            align_corners=self.align_corners,
            antialias=self.antialias,
        )

    def maps(self, maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        """(N, D, h, w) maps of the large view -> their place on a grid of the small view."""
        if not self.align_corners:
            return upsample(maps, size)
        return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)

    def valid(self, valid: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        """(N, H, W) bool -> (N, h, w) float, 1 where a cell's center is a real pixel."""
        return F.interpolate(valid[:, None].float(), size=tuple(size), mode="nearest")[:, 0]

    def pairs(self, pairs: Tensor, size: tuple[int, int], small: tuple[int, int]) -> Tensor:
        """(N, L, L) pair matrix of the large grid -> (N, L', L') of the small grid."""
        return pool_pairs(pairs, size, small)
