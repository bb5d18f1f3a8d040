"""SEAM's pixel correlation module: which cells look alike, from the image and two earlier maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.methods.seam.correlation import correlate, correlation_input

WIDTHS = (64, 128)
"""Channels that f2 and f3 are brought to."""
COLORS = 3


class PixelCorrelation(nn.Module):
    """Colors, f2 and f3 at the grid of the evidence, mixed by one layer, then compared.

    Evidence and feature maps are detached: only the layers of this module learn from its output.

    Args:
        channels: Widths of f2 and f3.

    Source:
        SEAM, section 3.3 with Specification 4.2: conv4 to 64 and conv5 to 128 channels,
        both with ReLU, beside the image's 3, then 1 x 1 from 195 to 192; no bias.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(
            nn.Conv2d(channel, width, 1, bias=False)
            for channel, width in zip(channels, WIDTHS, strict=True)
        )
        mixed = sum(WIDTHS)
        self.mix = nn.Conv2d(COLORS + mixed, mixed, 1, bias=False)
        for layer in self.reduce:
            nn.init.kaiming_normal_(cast(nn.Conv2d, layer).weight, nonlinearity="relu")

    def forward(self, image: Tensor, maps: Sequence[Tensor], cam: Tensor) -> Tensor:
        """Gather evidence from like cells.

        Args:
            image: (N, 3, H, W) normalized images.
            maps: f2 and f3, (N, D_i, h_i, w_i).
            cam: (N, F, h, w) raw signed evidence.

        Returns:
            (N, 1 + F, h, w) float32 in [0, 1], background first.
        """
        grid = cam.shape[-2:]
        parts = [F.interpolate(image, size=grid, mode="bilinear", align_corners=True)]
        for layer, source in zip(self.reduce, maps, strict=True):
            parts.append(upsample(F.relu(layer(source.detach())), grid))
        return correlate(correlation_input(cam), self.mix(torch.cat(parts, dim=1)))
