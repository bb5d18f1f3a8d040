"""Atrous spatial pyramid pooling: parallel convolutions of the last map at several dilations.

Source:
    DeepLab v3 (arXiv 1706.05587), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.models.batch_norm import SharedBatchNorm


class ASPP(nn.Module):
    """Fuse a 1 x 1 layer, dilated 3 x 3 layers and image pooling with a 1 x 1 layer.

    Departs: image pooling has no BatchNorm, because its statistics would be over one value per
    image.

    Args:
        channels: Channels of the map.
        width: Channels of each branch and of the output.
        dilations: Dilations of the 3 x 3 layers.
    """

    def __init__(
        self, channels: int, width: int = 256, dilations: Sequence[int] = (6, 12, 18)
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm_relu(channels, width, 1)])
        self.branches.extend(conv_norm_relu(channels, width, 3, rate) for rate in dilations)
        self.image_pool = nn.Conv2d(channels, width, 1)
        self.fuse = conv_norm_relu(width * (len(self.branches) + 1), width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn (N, D, h, w) into (N, width, h, w), at least 0."""
        parts = [branch(maps) for branch in self.branches]
        pooled = F.relu(self.image_pool(maps.mean(dim=(2, 3), keepdim=True)))
        fused: Tensor = self.fuse(torch.cat([*parts, pooled.expand_as(parts[0])], dim=1))
        return fused


def conv_norm_relu(channels: int, width: int, side: int, dilation: int = 1) -> nn.Sequential:
    """Build a convolution that keeps the size, BatchNorm over all processes, and ReLU."""
    return nn.Sequential(
        nn.Conv2d(
            channels, width, side, padding=dilation * (side // 2), dilation=dilation, bias=False
        ),
        SharedBatchNorm(width),
        nn.ReLU(inplace=True),
    )
