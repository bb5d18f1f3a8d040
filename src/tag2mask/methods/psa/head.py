"""PSA's head: pixel features whose differences give the affinity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample

PAIR_WIDTHS = (64, 128, 256)
"""Channels to which each of the last three feature maps is reduced."""
XAVIER_GAIN = 4.0
"""Gain of the mixing layer's initial weights, large enough that initial features differ."""


class PairFeatures(nn.Module):
    """Reduce the last three feature maps, mix them with a 1 x 1 convolution and apply an ELU.

    Args:
        channels: Widths of the three maps.

    Source:
        PSA (arXiv 1803.10464), section 3.2; Specification 4.3.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        layers = [
            nn.Conv2d(width, out, kernel_size=1, bias=False)
            for width, out in zip(channels, PAIR_WIDTHS, strict=True)
        ]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)
        self.embed = nn.ModuleList(layers)
        self.mix = nn.Conv2d(sum(PAIR_WIDTHS), sum(PAIR_WIDTHS), kernel_size=1, bias=False)
        nn.init.xavier_uniform_(self.mix.weight, gain=XAVIER_GAIN)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn three (N, D_i, h_i, w_i) maps into (N, 448, h_1, w_1) features."""
        size = maps[0].shape[-2:]
        reduced = [F.elu(layer(one)) for layer, one in zip(self.embed, maps, strict=True)]
        mixed: Tensor = self.mix(torch.cat([upsample(one, size) for one in reduced], dim=1))
        return F.elu(mixed)
