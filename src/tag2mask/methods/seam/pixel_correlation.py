"""SEAM's pixel correlation module, which refines CAMs by pixel similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.methods.seam.correlation import correlate, correlation_input

WIDTHS = (64, 128)
"""Channels to which f2 and f3 are reduced."""
COLORS = 3
XAVIER_GAIN = 4.0
"""Gain of the mixing layer's initial weights, large enough that initial features differ."""


class PixelCorrelation(nn.Module):
    """Refine CAMs by the similarity of features from colors, f2 and f3.

    CAMs and feature maps are detached: only the layers of this module learn from its output.

    Args:
        channels: Channels of f2 and f3.

    Source:
        SEAM, section 3.3; Specification 4.2: conv4 is reduced to 64 and conv5 to 128 channels, both
        with ReLU, and concatenated with the 3 colors; then a 1 x 1 convolution from 195 to 192
        channels. No layer has a bias. The first two start from Kaiming's rule, the last from
        Xavier's with gain 4.
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
        nn.init.xavier_uniform_(self.mix.weight, gain=XAVIER_GAIN)

    def forward(self, image: Tensor, maps: Sequence[Tensor], cam: Tensor) -> Tensor:
        """Average CAMs over similar pixels.

        Args:
            image: (N, 3, H, W) normalized images.
            maps: f2 and f3, (N, D_i, h_i, w_i).
            cam: (N, F, h, w) raw signed CAM.

        Returns:
            (N, 1 + F, h, w) float32 in [0, 1], background first.
        """
        size = cam.shape[-2:]
        parts = [F.interpolate(image, size=size, mode="bilinear", align_corners=True)]
        for layer, source in zip(self.reduce, maps, strict=True):
            parts.append(upsample(F.relu(layer(source.detach())), size))
        return correlate(correlation_input(cam), self.mix(torch.cat(parts, dim=1)))
