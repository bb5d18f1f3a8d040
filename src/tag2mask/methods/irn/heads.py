"""IRN's two branches: boundary strength, and displacement to the object's center.

Source:
    IRN (arXiv 1904.05044), section 3.2; Specification 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample

EDGE_WIDTH, EDGE_GROUPS = 32, 4
DISPLACEMENT_WIDTHS = (64, 128, 256, 256, 256)
"""Channels for each of IRN's five maps; a backbone with four maps uses the last four."""
DISPLACEMENT_WIDTH, DISPLACEMENT_GROUPS = 256, 16


class EdgeHead(nn.Module):
    """Reduce every feature map to a few channels and mix them into one boundary map.

    Args:
        channels: Widths of the maps.

    Source:
        IRN, section 3.2; Specification 4.3. The paper uses five maps of a ResNet; this head uses
        as many as the backbone has.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.embed = nn.ModuleList(_embedding(width, EDGE_WIDTH, EDGE_GROUPS) for width in channels)
        self.mix = nn.Conv2d(EDGE_WIDTH * len(channels), 1, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn (N, D_i, h_i, w_i) maps, finest first, into (N, 1, h, w) logits."""
        logits: Tensor = self.mix(_concatenate(self.embed, maps))
        return logits


class DisplacementHead(nn.Module):
    """Predict the displacement from each pixel to the center of its object.

    Args:
        channels: Widths of the maps, at most five.

    Source:
        IRN, section 3.2; Specification 4.3. Departs: one layer mixes all maps; the released code
        mixes the last three before the two finer ones join.
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
        """Turn (N, D_i, h_i, w_i) maps, finest first, into (N, 2, h, w) pixels (down, right)."""
        displacement: Tensor = self.point(F.relu(self.mix(_concatenate(self.embed, maps))))
        return displacement


def _embedding(width: int, out: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, out, kernel_size=1, bias=False), nn.GroupNorm(groups, out)
    )


def _concatenate(embed: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """Embed each map, resize it to the finest size and concatenate all of them."""
    size = maps[0].shape[-2:]
    embedded = [F.relu(upsample(layer(one), size)) for layer, one in zip(embed, maps, strict=True)]
    return torch.cat(embedded, dim=1)
