"""Small networks on top of a backbone: pair affinities from attention, and a fused context map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.models.base import QueryKey

AFFINITY_STD = 0.577
"""Kaiming normal, fan-out 1, a = sqrt(5): the gain is sqrt(2 / (1 + 5))."""


class AffinityHead(nn.Module):
    """Learned mean of raw attention logits over blocks and heads, made symmetric.

    Args:
        channels: Heads of all captured blocks together.
        head_dim: Channels per head; q k^T grows with its root.
        scale_logits: Divide by sqrt(head_dim) first, so that training does not start saturated.
        zero_init: Start with affinity 0.5 everywhere.

    Source:
        AFA, Eq. 4 with Specification 2.1 and R10: 1x1 convolution of S + S^T, weights
        N(0, 0.577^2). Computed as the convolution of S, made symmetric afterwards, and that as one
        product of weighed queries and keys: the same, and no map per head exists.
    """

    def __init__(
        self, channels: int, head_dim: int, *, scale_logits: bool = False, zero_init: bool = False
    ) -> None:
        super().__init__()
        self.gain = head_dim**-0.5 if scale_logits else 1.0
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(()))
        if not zero_init:
            nn.init.normal_(self.weight, std=AFFINITY_STD)
            nn.init.uniform_(self.bias, -(channels**-0.5), channels**-0.5)

    def forward(self, attention: Sequence[QueryKey]) -> Tensor:
        """Score token pairs.

        Args:
            attention: Queries and keys of each captured block.

        Returns:
            (N, L, L) symmetric logits; their sigmoid is the affinity.
        """
        weights = torch.split(self.weight * self.gain, [block.heads for block in attention])
        score = reduce(
            torch.add,
            (block.mixed(weight) for weight, block in zip(weights, attention, strict=True)),
        )  # (N, L, L)
        pairs: Tensor = score + score.transpose(1, 2) + self.bias
        return pairs


class ContextNeck(nn.Module):
    """All four feature maps fused at the finest grid, in few standardised channels.

    Args:
        channels: Widths of f1..f4.
        width: Output channels C_r.
        fusion: False: only f4 is used, resized.

    Source:
        RML, Eq. 5 with Specification R6. A 1x1 convolution of the concatenated maps,
        computed per map before resizing: both are linear, so the result is the same and no wide map
        exists at the finest grid. Batch statistics without gain and offset keep the map from
        becoming constant.
    """

    def __init__(self, channels: Sequence[int], width: int, *, fusion: bool = True) -> None:
        super().__init__()
        self.widths = list(channels) if fusion else [channels[-1]]
        self.conv = nn.Conv2d(sum(self.widths), width, 1, bias=False)
        self.norm = SharedBatchNorm(width, affine=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, D_i, H_i, W_i) maps f1..f4 to the context (N, C_r, H_1, W_1), at least 0."""
        grid = maps[0].shape[-2:]
        weights = torch.split(self.conv.weight, self.widths, dim=1)
        used = maps[-len(self.widths) :]
        parts = [
            upsample(F.conv2d(source, weight), grid)
            for source, weight in zip(used, weights, strict=True)
        ]
        return F.relu(self.norm(reduce(torch.add, parts)))


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose training statistics span all processes of a run, on the CPU too.

    torch's SyncBatchNorm refuses CPU tensors.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Standardise (N, D, H, W) maps per channel."""
        if not (self.training and _several_ranks()):
            return super().forward(maps)
        mean, variance, count = whole_batch_moments(maps)
        self._track(mean.detach(), variance.detach(), count)
        normal = (maps - mean.view(1, -1, 1, 1)) * torch.rsqrt(variance + self.eps).view(
            1, -1, 1, 1
        )
        if not self.affine:
            return normal
        return normal * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running statistics as `nn.BatchNorm2d` does: variance unbiased."""
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        unbiased = variance * (count / (count - 1).clamp_min(1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def whole_batch_moments(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance per channel over the batches of all processes, differentiably.

    The variance is taken about the shared mean in a second round: E[x^2] - E[x]^2 would cancel.

    Args:
        maps: (N, D, H, W); N, H, W may differ between processes.

    Returns:
        Mean (D,), biased variance (D,), and the number of values per channel as a scalar tensor.
    """
    maps = maps.float()
    count = sum_over_ranks(maps.new_tensor(maps.numel() / maps.shape[1]))
    mean = sum_over_ranks(maps.sum(dim=(0, 2, 3))) / count
    variance = sum_over_ranks((maps - mean.view(1, -1, 1, 1)).square().sum(dim=(0, 2, 3))) / count
    return mean, variance, count


def _several_ranks() -> bool:
    """Tell whether this is one process of several."""
    distributed = torch.distributed
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
