"""Depthwise convolutions whose backward pass is fast on the CPU too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from tag2mask.functional.depthwise_cpu import weight_gradient

Pair = tuple[int, int]


def depthwise_conv(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """Convolve every channel with its own kernel.

    On the CPU, the backward pass of kernels above 3 x 3 or with dilation is computed here: oneDNN
    takes up to 30 times as long. It is differentiable once.

    Args:
        maps: (N, D, H, W).
        weight: (D, 1, kernel, kernel).
        bias: (D,).
        stride: Vertical and horizontal, like the next two.
        padding: On both sides.
        dilation: Distance of taps in pixels.

    Returns:
        (N, D, h, w), under autocast in its type.
    """
    slow = max(weight.shape[2:]) > 3 or max(dilation) > 1
    if maps.device.type != "cpu" or not slow or not torch.is_grad_enabled():
        return F.conv2d(maps, weight, bias, stride, padding, dilation, len(weight))
    if torch.is_autocast_enabled("cpu"):
        maps = maps.to(torch.get_autocast_dtype("cpu"))
    if maps.dtype not in (torch.bfloat16, torch.float32):
        return F.conv2d(maps, weight, bias, stride, padding, dilation, len(weight))
    out: Tensor = _DepthwiseConv.apply(  # type: ignore[no-untyped-call]  # torch has no types here
        maps, weight, bias, stride, padding, dilation
    )
    return out


class _DepthwiseConv(torch.autograd.Function):
    """The convolution with its own backward pass; weight and bias may be of higher precision."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
    ) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(maps, weight)
        ctx.settings = (stride, padding, dilation)
        low = None if bias is None else bias.to(maps.dtype)
        return F.conv2d(maps, weight.to(maps.dtype), low, stride, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of maps, weight and bias."""
        maps, weight = ctx.saved_tensors
        needs_maps, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        of_maps = _input_gradient(maps, weight, gradient, *ctx.settings) if needs_maps else None
        of_weight = of_bias = None
        if needs_weight:
            kernel = (weight.shape[2], weight.shape[3])
            of_weight = weight_gradient(maps, gradient, kernel, *ctx.settings)
        if needs_bias:
            of_bias = gradient.sum(dim=(0, 2, 3), dtype=torch.float32)
        return of_maps, of_weight, of_bias, None, None, None


def _input_gradient(
    maps: Tensor, weight: Tensor, gradient: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Compute the gradient of the input; without stride, a convolution with the turned kernel."""
    low = weight.to(maps.dtype)
    if stride != (1, 1):
        result: Tensor = conv2d_input(  # type: ignore[no-untyped-call]  # torch has no types here
            list(maps.shape), low, gradient, stride, padding, dilation, len(weight)
        )
        return result
    reach = [step * (taps - 1) for step, taps in zip(dilation, weight.shape[2:], strict=True)]
    missing = [far - near for far, near in zip(reach, padding, strict=True)]
    return F.conv2d(gradient, low.flip(2, 3), None, 1, missing, dilation, len(weight))
