"""Convolution, BatchNorm and ReLU6 in one step, with the padding of networks from TensorFlow.

A BatchNorm in evaluation mode is folded into the convolution, which saves a pass over memory and
keeps the gradients of weight, gamma and beta exact. ReLU6 works in place: the backward passes of
convolution and BatchNorm do not read their outputs.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

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
    totals = []
    for axis in (0, 1):
        stride, size = convolution.stride[axis], maps.shape[2 + axis]
        reach = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1) + 1
        totals.append(max(reach - (size % stride or stride), 0))
    vertical, horizontal = totals
    if vertical % 2 == 0 and horizontal % 2 == 0:
        return maps, (vertical // 2, horizontal // 2)
    top, left = vertical // 2, horizontal // 2
    return F.pad(maps, (left, horizontal - left, top, vertical - top)), (0, 0)
