"""The affinity head on a backbone's attention, and batch normalization over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.models.base import QueryKey

AFFINITY_STD = 0.577
"""Kaiming normal with fan-out 1 and a = sqrt(5), whose gain is sqrt(2 / (1 + 5))."""


class AffinityHead(nn.Module):
    """Predict affinity as a learned weighted sum of attention logits over blocks and heads.

    Args:
        channels: Total number of heads of the captured blocks.
        head_dim: Channels per head.
        scale_logits: Divide logits by sqrt(head_dim), so that training does not start saturated.
        zero_init: Start with affinity 0.5 everywhere.

    Source:
        AFA, Eq. 4; Specification 2.1 and R10: a 1 x 1 convolution of S + S^T with weights from
        N(0, 0.577^2). Computed as one product of weighted queries and keys, which is then added to
        its transpose: the result is the same and no map per head exists.
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
        """Compute the affinity logits of all pairs of tokens.

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


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm with training statistics over the batches of all processes.

    Unlike torch's SyncBatchNorm, it works on the CPU too.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Normalize (N, D, H, W) maps per channel."""
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
        """Update the running statistics as `nn.BatchNorm2d` does, with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        unbiased = variance * (count / (count - 1).clamp_min(1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def whole_batch_moments(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the mean and variance per channel over the batches of all processes.

    Differentiable. The variance is computed around the shared mean in a second reduction, because
    E[x^2] - E[x]^2 loses precision.

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
    """Return whether the run has several processes."""
    distributed = torch.distributed
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
