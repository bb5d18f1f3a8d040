"""Convolution, BatchNorm and ReLU6 in one step, with the padding of networks from TensorFlow.

A BatchNorm in evaluation mode is folded into the convolution, which saves a pass over memory and
keeps the gradients of weight, gamma and beta exact. ReLU6 works in place: the backward passes of
convolution and BatchNorm do not read their outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.sizes import is_exporting
from tag2mask.models.folding import convolve, folded


def conv_norm(maps: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run one convolution with its BatchNorm.

    Args:
        maps: (N, D_in, H, W).
        convolution: Without bias; its padding is ignored.
        norm: Its BatchNorm.

    Returns:
        (N, D_out, ceil(H / stride), ceil(W / stride)).
    """
    maps, padding = same_padding(maps, convolution)
    weight, bias = convolution.weight, None
    if not norm.training:
        weight, bias = folded(weight, norm)
    out = convolve(maps, weight, bias, convolution, padding)
    normal: Tensor = norm(out) if norm.training else out
    return normal


def conv_norm_relu(maps: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run `conv_norm` and ReLU6; the result is in [0, 6]."""
    return F.relu6(conv_norm(maps, convolution, norm), inplace=True)


def same_padding(maps: Tensor, convolution: nn.Conv2d) -> tuple[Tensor, tuple[int, int]]:
    """Pad like TensorFlow's SAME: output sizes are size / stride rounded up; odd padding goes last.

    Args:
        maps: (N, D, H, W).
        convolution: Gives kernel, stride and dilation.

    Returns:
        The maps and the symmetric (vertical, horizontal) padding for the convolution. Maps are
        copied only for asymmetric padding (stride 2 on an even size).
    """
    if is_exporting() and max(convolution.stride) > 1:
        for axis in (0, 1):
            maps = _padded_window(maps, axis, convolution)
        return maps, (0, 0)
    totals = []
    for axis in (0, 1):
        stride, size = convolution.stride[axis], maps.shape[2 + axis]
        reach = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1) + 1
        rest = (size - 1) % stride if stride > 1 else 0
        totals.append(max(reach - 1 - rest, 0))
    vertical, horizontal = totals
    if vertical % 2 == 0 and horizontal % 2 == 0:
        return maps, (vertical // 2, horizontal // 2)
    top, left = vertical // 2, horizontal // 2
    return F.pad(maps, (left, horizontal - left, top, vertical - top)), (0, 0)


def _padded_window(maps: Tensor, axis: int, convolution: nn.Conv2d) -> Tensor:
    """Pad one axis (0 or 1) of maps whose size is a symbol, by selecting rows of padded maps.

    The odd row then shows in the values of indices only, and not in the formula of a size.
    """
    size, stride = maps.shape[2 + axis], convolution.stride[axis]
    reach = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1) + 1
    length = ((size + stride - 1) // stride - 1) * stride + reach
    last = torch.arange(size, device=maps.device)[-1]
    before = torch.div(reach - 1 - last % stride, 2, rounding_mode="floor").clamp_min(0)
    pads = [reach - 1, reach - 1]
    padded = F.pad(maps, [0, 0, *pads] if axis == 0 else [*pads, 0, 0])
    rows = torch.arange(length, device=maps.device) + (reach - 1 - before)
    return padded.index_select(2 + axis, rows)
