"""The same network with fewer passes over memory.

BatchNorm with fixed statistics is folded into the convolution before it: gradients to weight, gamma
and beta stay exact, and what the convolution gives need not be kept for the way back. Padding that
is alike on all sides is left to the convolution.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn


def folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what `weight` and then `norm` do."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    return weight * gain.view(-1, 1, 1, 1), norm.bias - mean * gain


class FoldedConv(nn.Conv2d):
    """A convolution that does its BatchNorm's work, too, while that is in evaluation mode."""

    norm: tuple[nn.BatchNorm2d]
    """In a tuple, so that it does not become a part of the convolution."""

    def forward(self, maps: Tensor) -> Tensor:
        """(N, D, H, W) to the normalized (N, D', H', W'); not normalized in training mode."""
        (norm,) = self.norm
        if norm.training:
            return super().forward(maps)
        out: Tensor = self._conv_forward(maps, *folded(self.weight, norm))
        return out


class FoldedNorm(nn.BatchNorm2d):
    """A BatchNorm whose convolution does its work while it is in evaluation mode."""

    def forward(self, maps: Tensor) -> Tensor:
        """(N, D, H, W) to the same, normalized here or already."""
        return super().forward(maps) if self.training else maps


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Join two layers of which the second reads the first and nothing else does.

    They keep their place, names and parameters, and go on training as before.

    Args:
        convolution: Without bias.
        norm: With weights and running statistics.
    """
    convolution.__class__ = FoldedConv
    cast(FoldedConv, convolution).norm = (norm,)
    norm.__class__ = FoldedNorm


def fold_layers(network: nn.Module) -> int:
    """Fold all layers of a network of `transformers` that are a convolution, a norm, an activation.

    MobileNet, ResNet and RegNet are made of such; their parts are called `convolution`,
    `normalization`, `activation`. Their ReLUs then work in place, since nothing else reads what
    they read.

    Returns:
        How many were folded.
    """
    count = 0
    for layer in network.modules():
        parts = dict(layer.named_children())
        convolution, norm = parts.get("convolution"), parts.get("normalization")
        if type(convolution) is not nn.Conv2d or convolution.bias is not None:
            continue
        if type(norm) is not nn.BatchNorm2d:
            continue
        fold(convolution, norm)
        activation = parts.get("activation")
        if isinstance(activation, nn.ReLU | nn.ReLU6):
            activation.inplace = True
        count += 1
    return count


def pad_within(network: nn.Module) -> int:
    """Let MobileNet's unstrided convolutions pad themselves.

    With `tf_padding` each layer of `transformers` pads by copying the map, even where there is
    nothing to pad; only where a stride meets an even size are the sides unlike.

    Returns:
        How many layers copy no longer.
    """
    count = 0
    for layer in cast(Iterable[Any], network.modules()):
        convolution = getattr(layer, "convolution", None)
        if not isinstance(convolution, nn.Conv2d) or convolution.stride != (1, 1):
            continue
        if not getattr(getattr(layer, "config", None), "tf_padding", False):
            continue
        layer.config = copy.copy(layer.config)
        layer.config.tf_padding = False
        (height, width), (rows, columns) = convolution.kernel_size, convolution.dilation
        convolution.padding = (rows * (height - 1) // 2, columns * (width - 1) // 2)
        count += 1
    return count
