"""The decoder of DeepLab v2: the last map classified at several widths of view, added up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

STARTING_STD = 0.01


class DeepLabHead(nn.Module):
    """Dilated 3 x 3 classifiers of one map, side by side; their logits are summed.

    Args:
        channels: Width of the last map.
        num_classes: C, with background.
        dilations: One branch each, in cells; meant for maps of stride 8.

    Source:
        DeepLab v2 (arXiv 1606.00915), section 3.2, ASPP-L as its ResNet-101 has it: each branch
        classifies by itself. Weights start from N(0, 0.01^2), biases from 0.
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
                nn.init.normal_(parameter, std=STARTING_STD)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps f1..f4, of which the last, (N, D, h, w), is read, to logits (N, C, h, w)."""
        logits: Tensor = reduce(torch.add, (branch(maps[-1]) for branch in self.branches))
        return logits
