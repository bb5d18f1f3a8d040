"""The decoder of SegFormer: four maps, each in the same width, fused at the finest grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.models.heads import SharedBatchNorm


class SegFormerHead(nn.Module):
    """A linear layer per map, concatenation at the finest grid, fusion, classification.

    The linear layer of a map and its share of the fusing convolution are one linear map, and
    resizing commutes with both: their product is applied on the map's own grid, maps of one grid
    are added, then resized and added. The result is the same with a seventh of the multiplications,
    and the map of 4 x `width` channels never exists.

    Args:
        channels: D_1..D_4.
        num_classes: C, with background.
        width: Channels of the fused map.
        dropout: Chance that a whole channel of the fused map is left out in training.

    Source:
        SegFormer (arXiv 2105.15203), section 3.2 with Specification 2.1: concatenated in
        the order f4 to f1, fused without bias, BatchNorm over the whole batch, ReLU, dropout.
    """

    def __init__(
        self, channels: Sequence[int], num_classes: int, width: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(channel, width) for channel in channels)
        self.fuse = nn.Conv2d(len(channels) * width, width, 1, bias=False)
        self.norm = SharedBatchNorm(width)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, D_i, H_i, W_i) maps f1..f4 to logits (N, C, H_1, W_1), background first."""
        shares = self.fuse.weight.flatten(1).chunk(len(maps), dim=1)[::-1]  # (width, width) each
        layers = [cast(nn.Linear, layer) for layer in self.project]
        bias = reduce(torch.add, map(torch.mv, shares, [layer.bias for layer in layers]))
        parts: dict[torch.Size, Tensor] = {}
        for share, layer, source in zip(shares, layers, maps, strict=True):
            part = F.conv2d(source, (share @ layer.weight)[:, :, None, None])
            size = part.shape[-2:]
            parts[size] = parts[size] + part if size in parts else part
        grid = maps[0].shape[-2:]
        fused = reduce(torch.add, (upsample(part, grid) for part in parts.values()))
        fused = fused + bias.view(1, -1, 1, 1)
        logits: Tensor = self.classifier(self.dropout(F.relu(self.norm(fused))))
        return logits
