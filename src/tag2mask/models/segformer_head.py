"""The decoder of SegFormer: four feature maps, projected to one width and fused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.models.batch_norm import SharedBatchNorm


class SegFormerHead(nn.Module):
    """Project each map, concatenate all maps at the finest size, fuse and classify them.

    The projection of a map and its part of the fusing convolution are linear and commute with
    resizing. Their product is applied at the map's own size, maps of equal size are added, and the
    sums are resized and added. The result is the same with a seventh of the multiplications and
    without a map of 4 x `width` channels.

    Args:
        channels: D_1..D_4.
        num_classes: C, including background.
        width: Channels of the fused map.
        dropout: Probability of dropping a channel of the fused map in training.

    Source:
        SegFormer (arXiv 2105.15203), section 3.2; Specification 2.1: concatenation in the order f4
        to f1, fusion without bias, BatchNorm over the full batch, ReLU, dropout.
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
        """Turn (N, D_i, H_i, W_i) maps f1..f4 into logits (N, C, H_1, W_1), background first."""
        kernels = self.fuse.weight.flatten(1).chunk(len(maps), dim=1)[::-1]  # (width, width) each
        layers = [cast(nn.Linear, layer) for layer in self.project]
        bias = reduce(torch.add, map(torch.mv, kernels, [layer.bias for layer in layers]))
        parts: dict[torch.Size, Tensor] = {}
        for kernel, layer, source in zip(kernels, layers, maps, strict=True):
            part = F.conv2d(source, (kernel @ layer.weight)[:, :, None, None])
            size = part.shape[-2:]
            parts[size] = parts[size] + part if size in parts else part
        finest = maps[0].shape[-2:]
        fused = reduce(torch.add, (upsample(part, finest) for part in parts.values()))
        fused = fused + bias.view(1, -1, 1, 1)
        logits: Tensor = self.classifier(self.dropout(F.relu(self.norm(fused))))
        return logits
