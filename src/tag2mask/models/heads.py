"""The affinity head on a backbone's attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

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
