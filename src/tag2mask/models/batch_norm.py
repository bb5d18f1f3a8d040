"""Batch normalization with the statistics of the batches of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tag2mask.functional.reduction import num_ranks, sum_over_ranks


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm with training statistics over the batches of all processes.

    Unlike torch's SyncBatchNorm, it works on the CPU too.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Normalize (N, D, H, W) maps per channel."""
        if not (self.training and num_ranks() > 1):
            return super().forward(maps)
        mean, variance, count = whole_batch_moments(maps)
        self._track(mean.detach(), variance.detach(), count)
        normal = (maps - mean.view(1, -1, 1, 1)) * torch.rsqrt(variance + self.eps).view(
            1, -1, 1, 1
        )
        if self.affine:
            normal = normal * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normal.to(maps.dtype)

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


def share_batch_statistics(network: nn.Module) -> None:
    """Let every plain BatchNorm of a network share its statistics, in place.

    Backbones of other packages build plain ones. Names, weights and results of a single process
    stay the same.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
