"""A model q(y | x) of one map given another, for a variational bound on mutual information."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditionalGaussian(nn.Module):
    """q(y | x), a diagonal Gaussian with mean and log-variance from small networks on x.

    Args:
        channels: Channels D of x and y.
        hidden: Width of the hidden layers.

    Source:
        Specification R8 (`club`).
    """

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.log_variance = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Tanh()
        )

    def log_density(self, x: Tensor, y: Tensor, *, frozen: bool = False) -> Tensor:
        """Compute log q(y | x) up to a constant.

        Args:
            x: (S, D).
            y: (S, D).
            frozen: Detach the weights of q; gradients flow to x and y only.

        Returns:
            (S,).
        """
        if frozen:
            weights = {name: value.detach() for name, value in self.named_parameters()}
            density: Tensor = torch.func.functional_call(self, weights, (x, y))
            return density
        return self.forward(x, y)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the same as `log_density`."""
        log_variance: Tensor = self.log_variance(x)
        error: Tensor = (y - self.mean(x)).square() / log_variance.exp()
        return -0.5 * (error + log_variance).sum(dim=1)
