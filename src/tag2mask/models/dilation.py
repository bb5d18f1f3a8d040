"""Convolutional networks made finer: last strides removed, what follows dilated, weights kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.errors import WeightsError

PROBE_PX = 64
"""Side of the square image that shows at which stride each layer works; every stride divides it."""
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_ADVICE = "take a larger backbone.stride"

NetworkOutput = Callable[[Tensor], object]
"""One forward pass over (N, 3, H, W)."""
Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


@dataclass(frozen=True, slots=True)
class Place:
    """Pixels per cell of what a layer reads and of what it gives."""

    before: int
    after: int


def limit_stride(network: nn.Module, look: NetworkOutput, limit: int) -> None:
    """Let no layer work at a coarser stride than `limit`; weights stay as they are.

    A layer that would go beyond loses its stride; one that works beyond is dilated by as much as
    its grid became finer, and padded so that sizes stay. The cells of the plain network's map are
    then found again in the finer map, with new cells between. A layer's stride is measured, not
    counted along the way, so that shortcuts beside a strided layer are treated alike.

    Args:
        network: Changed in place.
        look: Runs it on an image.
        limit: A power of two.

    Raises:
        WeightsError: If something there cannot be dilated.

    Source:
        arXiv 1412.7062, section 3.1 (holes in place of strides). Padding that is missing is split
        evenly; where it is odd (even kernels), one more goes in front.
    """
    changed: list[nn.Conv2d] = []
    for layer, place in measure(network, look).items():
        if place.after <= limit or not _sees_neighbors(layer):
            continue
        if not isinstance(layer, nn.Conv2d):
            raise WeightsError(
                f"its {type(layer).__name__} at stride {place.after} cannot be dilated; {_ADVICE}"
            )
        _thin_out(layer, place, limit)
        changed.append(layer)
    mend = _PatchedConv(PROBE_PX // limit)
    hooks = [layer.register_forward_hook(mend) for layer in changed]
    try:
        probe(network, look)
    finally:
        for hook in hooks:
            hook.remove()


def measure(network: nn.Module, look: NetworkOutput) -> dict[Windowed, Place]:
    """Find out where every layer with a window works, in the order of the forward pass."""
    places: dict[Windowed, Place] = {}

    def note(layer: Windowed, _: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, _POOLS) and output.shape[-2:] == (1, 1):
            return  # pools all of the map, for a classifier
        after = PROBE_PX // output.shape[-1]
        places[layer] = Place(after // _pair(layer.stride)[0], after)

    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, *_POOLS))]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        probe(network, look)
    finally:
        for hook in hooks:
            hook.remove()
    return places


def probe(network: nn.Module, look: NetworkOutput) -> None:
    """Look at a black image, statistics untouched."""
    training = network.training
    network.eval()
    with torch.no_grad():
        look(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
    network.train(training)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Vertical and horizontal setting of a layer."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _sees_neighbors(layer: Windowed) -> bool:
    """Whether a layer mixes or skips cells; where it does not, there is nothing to change."""
    return _pair(layer.kernel_size) != (1, 1) or _pair(layer.stride) != (1, 1)


def _thin_out(layer: nn.Conv2d, place: Place, limit: int) -> None:
    """Trade a convolution's stride beyond `limit` for the holes that its place there needs."""
    now = min(place.before, limit)
    step, holes = min(place.after, limit) // now, place.before // now
    layer.stride = (step, step)
    layer.dilation = (layer.dilation[0] * holes, layer.dilation[1] * holes)
    if not isinstance(layer.padding, str):
        layer.padding = (layer.padding[0] * holes, layer.padding[1] * holes)


@dataclass(frozen=True, slots=True)
class _PatchedConv:
    """A forward hook that gives a layer whose output came out too small the padding it lacks.

    Networks pad in many places: in the layer, before it, in a function of kernel and stride. What
    is missing after a change is therefore measured.
    """

    size: int
    """Side that the output should have."""

    def __call__(self, layer: nn.Conv2d, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows, columns = (self.size - side for side in output.shape[-2:])
        if (rows, columns) == (0, 0):
            return output
        if min(rows, columns) >= 0:
            own = (0, 0) if isinstance(layer.padding, str) else layer.padding
            layer.padding = (own[0] + rows // 2, own[1] + columns // 2)
            image = given[0]
            if rows % 2 or columns % 2:
                front = _PadFront(rows % 2, columns % 2)
                layer.register_forward_pre_hook(front)
                (image,) = front(layer, given)
            output = layer.forward(image)
        if output.shape[-2:] != (self.size, self.size):
            sides = " x ".join(str(side) for side in output.shape[-2:])
            raise WeightsError(
                f"its {type(layer).__name__} cannot be dilated: the map has {sides} cells in place "
                f"of {self.size} x {self.size}; {_ADVICE}"
            )
        return output


@dataclass(frozen=True, slots=True)
class _PadFront:
    """A forward pre-hook that adds rows of zeros above and columns of zeros to the left."""

    rows: int
    columns: int

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (F.pad(given[0], (self.columns, 0, self.rows, 0)),)
