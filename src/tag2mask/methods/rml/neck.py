"""RML's neck: all feature maps fused into one context map at the finest size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.models.batch_norm import SharedBatchNorm


class ContextNeck(nn.Module):
    """Fuse four feature maps at the finest size into a few normalized channels.

    Args:
        channels: Widths of f1..f4.
        width: Output channels C_r.
        fusion: Use all maps. If False, only f4 is used and resized.

    Source:
        RML, Eq. 5; Specification R6. The paper concatenates the maps and applies a 1 x 1
        convolution. Here each map is convolved before it is resized: both are linear, so the result
        is the same and no wide map exists at the finest size. Batch normalization without gain and
        offset keeps the map from becoming constant.
    """

    def __init__(self, channels: Sequence[int], width: int, *, fusion: bool = True) -> None:
        super().__init__()
        self.widths = list(channels) if fusion else [channels[-1]]
        self.conv = nn.Conv2d(sum(self.widths), width, 1, bias=False)
        self.norm = SharedBatchNorm(width, affine=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn (N, D_i, H_i, W_i) maps f1..f4 into the context (N, C_r, H_1, W_1), at least 0."""
        size = maps[0].shape[-2:]
        weights = torch.split(self.conv.weight, self.widths, dim=1)
        used = maps[-len(self.widths) :]
        parts = [
            upsample(F.conv2d(source, weight), size)
            for source, weight in zip(used, weights, strict=True)
        ]
        return F.relu(self.norm(reduce(torch.add, parts)))
