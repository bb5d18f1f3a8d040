"""Small networks that look at a backbone's maps to compare near pixels: features, boundaries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample

PAIR_WIDTHS = (64, 128, 256)
"""Channels that PSA takes from the last three maps."""
EDGE_WIDTH, EDGE_GROUPS = 32, 4
DISPLACEMENT_WIDTHS = (64, 128, 256, 256, 256)
"""Channels that IRN takes from five maps; a backbone of four gives the last four."""
DISPLACEMENT_WIDTH, DISPLACEMENT_GROUPS = 256, 16
XAVIER_GAIN = 4.0
"""Of the layer whose output PSA compares: features start far enough apart."""


class PairFeatures(nn.Module):
    """PSA's features: what is compared is an ELU of a mixture of the last three maps.

    Args:
        channels: Widths of those maps.

    Source:
        PSA, section 3.2 with Specification 4.3.
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
        """Three (N, D_i, h_i, w_i) maps to (N, 448, h, w) features at the grid of the first."""
        grid = maps[0].shape[-2:]
        seen = [F.elu(layer(one)) for layer, one in zip(self.embed, maps, strict=True)]
        mixed: Tensor = self.mix(torch.cat([upsample(one, grid) for one in seen], dim=1))
        return F.elu(mixed)


class EdgeHead(nn.Module):
    """IRN's boundary branch: a little of every map, mixed into one.

    Args:
        channels: Widths of the maps.

    Source:
        IRN, section 3.2 with Specification 4.3: five maps of a ResNet there, here as many
        as there are.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.embed = nn.ModuleList(_embedding(width, EDGE_WIDTH, EDGE_GROUPS) for width in channels)
        self.mix = nn.Conv2d(EDGE_WIDTH * len(channels), 1, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, D_i, h_i, w_i) maps, finest first, to (N, 1, h, w) logits at the finest grid."""
        logits: Tensor = self.mix(_fused(self.embed, maps))
        return logits


class DisplacementHead(nn.Module):
    """IRN's other branch: for every pixel the way to the middle of its thing.

    Args:
        channels: Widths of the maps, at most five.

    Source:
        IRN, section 3.2 with Specification 4.3. Departs: the maps are mixed in one layer;
        there the last three are mixed before the finer two join.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        widths = DISPLACEMENT_WIDTHS[-len(channels) :]
        self.embed = nn.ModuleList(
            _embedding(width, out, DISPLACEMENT_GROUPS)
            for width, out in zip(channels, widths, strict=True)
        )
        self.mix = _embedding(sum(widths), DISPLACEMENT_WIDTH, DISPLACEMENT_GROUPS)
        self.point = nn.Conv2d(DISPLACEMENT_WIDTH, 2, kernel_size=1, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, D_i, h_i, w_i) maps, finest first, to (N, 2, h, w) cells (down, right)."""
        way: Tensor = self.point(F.relu(self.mix(_fused(self.embed, maps))))
        return way


def _embedding(width: int, out: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, out, kernel_size=1, bias=False), nn.GroupNorm(groups, out)
    )


def _fused(embed: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """Embedded maps side by side at the finest grid."""
    grid = maps[0].shape[-2:]
    seen = [F.relu(upsample(layer(one), grid)) for layer, one in zip(embed, maps, strict=True)]
    return torch.cat(seen, dim=1)
