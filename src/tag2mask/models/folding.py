"""Faster execution of the same network, with fewer passes over memory.

BatchNorm with fixed statistics is folded into the preceding convolution. The gradients of weight,
gamma and beta stay exact, and the output of the convolution need not be stored for the backward
pass. Convolutions do symmetric padding themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.depthwise import depthwise_conv
from tag2mask.models.batch_norm import SharedBatchNorm


def folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of one convolution equal to `weight` followed by `norm`."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    return weight * gain.view(-1, 1, 1, 1), norm.bias - mean * gain


def convolve(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    convolution: nn.Conv2d,
    padding: tuple[int, int],
) -> Tensor:
    """Convolve with another weight, bias and padding than those of `convolution`."""
    stride, dilation = _pair(convolution.stride), _pair(convolution.dilation)
    if convolution.groups == len(weight) == maps.shape[1]:
        return depthwise_conv(maps, weight, bias, stride=stride, padding=padding, dilation=dilation)
    return F.conv2d(maps, weight, bias, stride, padding, dilation, convolution.groups)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    """Return the vertical and the horizontal value."""
    vertical, horizontal = values
    return vertical, horizontal


class FoldedConv(nn.Conv2d):
    """A convolution that includes its BatchNorm while that is in evaluation mode."""

    norm: tuple[nn.BatchNorm2d]
    """In a tuple, so that torch does not register it as a submodule."""

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve (N, D, H, W); normalize unless the BatchNorm is in training mode."""
        (norm,) = self.norm
        if norm.training:
            return super().forward(maps)
        weight, bias = folded(self.weight, norm)
        return convolve(maps, weight, bias, self, _pair(cast(tuple[int, ...], self.padding)))


class FoldedNorm(SharedBatchNorm):
    """A BatchNorm that its convolution includes while it is in evaluation mode."""

    def forward(self, maps: Tensor) -> Tensor:
        """Normalize (N, D, H, W) in training mode; otherwise the convolution did already."""
        return super().forward(maps) if self.training else maps


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Fold a BatchNorm into the convolution before it, in place.

    Nothing else may read the output of the convolution. Both layers keep their names and
    parameters, and train as before.

    Args:
        convolution: Without bias.
        norm: With weights and running statistics.
    """
    convolution.__class__ = FoldedConv
    cast(FoldedConv, convolution).norm = (norm,)
    norm.__class__ = FoldedNorm


def fold_layers(network: nn.Module) -> int:
    """Fold every layer of a `transformers` network with convolution, normalization and activation.

    MobileNet, ResNet and RegNet consist of such layers. Their ReLUs then work in place, because
    nothing else reads their input.

    Returns:
        Number of folded layers.
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
    """Move the padding of MobileNet's unstrided layers into their convolutions.

    With `tf_padding`, every layer of `transformers` copies the map to pad it, even by nothing. Only
    a stride on an even size needs asymmetric padding.

    Returns:
        Number of layers that no longer copy.
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
