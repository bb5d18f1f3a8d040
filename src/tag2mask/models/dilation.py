"""Dilated convolutional networks: remove late strides and dilate later layers; keep the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.errors import WeightsError

PROBE_PX = 64
"""Side of the square image for measuring strides; a multiple of every stride."""
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_ADVICE = "take a larger backbone.stride"

ForwardPass = Callable[[Tensor], object]
"""Runs the network on (N, 3, H, W) images."""
Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


@dataclass(frozen=True, slots=True)
class LayerStride:
    """Total stride of a layer's input and of its output, in image pixels."""

    before: int
    after: int


def limit_stride(network: nn.Module, forward: ForwardPass, limit: int) -> None:
    """Dilate a network so that no layer's output has a stride above `limit`; keep the weights.

    A layer that would exceed the limit loses its stride. Later layers are dilated by the same
    factor, with padding that keeps sizes. The finer map then contains the pixels of the original
    map, with new pixels between. Strides are measured on an image rather than multiplied along the
    layers, so that shortcuts parallel to a strided layer are handled too.

    Args:
        network: Modified in place.
        forward: Runs the network.
        limit: A power of two.

    Raises:
        WeightsError: If a layer cannot be dilated.

    Source:
        arXiv 1412.7062, section 3.1 (holes instead of strides). Missing padding is split evenly; an
        odd row or column (even kernels) goes to the front.
    """
    changed: list[nn.Conv2d] = []
    for layer, stride in measure_strides(network, forward).items():
        if stride.after <= limit or not _uses_neighbors(layer):
            continue
        if not isinstance(layer, nn.Conv2d):
            raise WeightsError(
                f"its {type(layer).__name__} at stride {stride.after} cannot be dilated; {_ADVICE}"
            )
        _dilate(layer, stride, limit)
        changed.append(layer)
    add_padding = _AddPadding(PROBE_PX // limit)
    hooks = [layer.register_forward_hook(add_padding) for layer in changed]
    try:
        run_probe(network, forward)
    finally:
        for hook in hooks:
            hook.remove()


def measure_strides(network: nn.Module, forward: ForwardPass) -> dict[Windowed, LayerStride]:
    """Measure the strides of all convolutions and poolings, in the order of the forward pass."""
    strides: dict[Windowed, LayerStride] = {}

    def record(layer: Windowed, _: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, _POOLS) and output.shape[-2:] == (1, 1):
            return  # global pooling of a classifier
        after = PROBE_PX // output.shape[-1]
        strides[layer] = LayerStride(after // _pair(layer.stride)[0], after)

    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, *_POOLS))]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        run_probe(network, forward)
    finally:
        for hook in hooks:
            hook.remove()
    return strides


def run_probe(network: nn.Module, forward: ForwardPass) -> None:
    """Run a network on a black image without updating its statistics."""
    training = network.training
    network.eval()
    with torch.no_grad():
        forward(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
    network.train(training)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Return the vertical and horizontal value of a layer's setting."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _uses_neighbors(layer: Windowed) -> bool:
    """Return whether a layer mixes or skips pixels; a 1 x 1 layer without stride never changes."""
    return _pair(layer.kernel_size) != (1, 1) or _pair(layer.stride) != (1, 1)


def _dilate(layer: nn.Conv2d, stride: LayerStride, limit: int) -> None:
    """Replace the part of a convolution's total stride above `limit` by dilation."""
    before = min(stride.before, limit)
    step, factor = min(stride.after, limit) // before, stride.before // before
    layer.stride = (step, step)
    layer.dilation = (layer.dilation[0] * factor, layer.dilation[1] * factor)
    if not isinstance(layer.padding, str):
        layer.padding = (layer.padding[0] * factor, layer.padding[1] * factor)


@dataclass(frozen=True, slots=True)
class _AddPadding:
    """A forward hook that adds padding to a layer whose output is too small.

    Networks pad in different ways: in the layer, before it, or in a function of kernel and stride.
    The hook therefore measures what is missing.
    """

    size: int
    """Expected side of the output."""

    def __call__(self, layer: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows, columns = (self.size - side for side in output.shape[-2:])
        if (rows, columns) == (0, 0):
            return output
        if min(rows, columns) >= 0:
            padding = (0, 0) if isinstance(layer.padding, str) else layer.padding
            layer.padding = (padding[0] + rows // 2, padding[1] + columns // 2)
            maps = inputs[0]
            if rows % 2 or columns % 2:
                front = _PadFront(rows % 2, columns % 2)
                layer.register_forward_pre_hook(front)
                (maps,) = front(layer, inputs)
            output = layer.forward(maps)
        if output.shape[-2:] != (self.size, self.size):
            sides = " x ".join(str(side) for side in output.shape[-2:])
            raise WeightsError(
                f"its {type(layer).__name__} cannot be dilated: the output is {sides} instead of "
                f"{self.size} x {self.size}; {_ADVICE}"
            )
        return output


@dataclass(frozen=True, slots=True)
class _PadFront:
    """A forward pre-hook that adds rows of zeros above and columns of zeros to the left."""

    rows: int
    columns: int

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (F.pad(inputs[0], (self.columns, 0, self.rows, 0)),)
