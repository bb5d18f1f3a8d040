"""The decoder of DeepLab v2: parallel classifiers of the last map at several dilations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

INIT_STD = 0.01


class DeepLabHead(nn.Module):
    """Sum the logits of parallel dilated 3 x 3 classifiers of one map.

    Args:
        channels: Channels of the last map.
        num_classes: C, including background.
        dilations: Dilation of each branch; the defaults are for maps of stride 8.

    Source:
        DeepLab v2 (arXiv 1606.00915), section 3.2: ASPP-L of its ResNet-101, in which every branch
        is a classifier. Weights start from N(0, 0.01^2), biases from 0.
    """

    def __init__(
        self, channels: int, num_classes: int, dilations: Sequence[int] = (6, 12, 18, 24)
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in dilations
        )
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=INIT_STD)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn the last, (N, D, h, w), of the maps f1..f4 into logits (N, C, h, w)."""
        logits: Tensor = reduce(torch.add, (branch(maps[-1]) for branch in self.branches))
        return logits
