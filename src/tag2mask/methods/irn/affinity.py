"""IRN's affinity: two pixels belong together unless a boundary crosses the line between them.

Source:
    IRN (arXiv 1904.05044), section 3.2; Specification 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tag2mask.functional.pair_affinity import inside
from tag2mask.functional.stencil import Offset, Window, pair_windows


def boundary_affinity(edge: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Compute 1 - the strongest boundary on the line between a pixel and its neighbor.

    Args:
        edge: (N, 1, h, w) boundary strength in [0, 1].
        offsets: The K neighbors.

    Returns:
        (N, K, h, w) in [0, 1], 0 for neighbors outside. The gradient goes to the strongest pixel of
        each line, and to each of them in a tie.

    Source:
        IRN, Eq. 1; Specification 4.3.

    Example:
        >>> import torch
        >>> edge = torch.tensor([[[[0.0, 0.0, 1.0, 0.0]]]])
        >>> boundary_affinity(edge, offsets=[(0, 1)])  # the third pixel is a boundary
        tensor([[[[1., 0., 0., 0.]]]])
    """
    peak: Tensor = _LinePeak.apply(edge[:, 0], tuple(offsets))  # type: ignore[no-untyped-call]
    return (1 - peak) * inside(offsets, edge)


def line_pixels(offset: Offset) -> list[Offset]:
    """List the pixels on the line from (0, 0) to `offset`, including both ends.

    Source:
        IRN's released code: all pixels of the bounding box of the ends whose center is less than
        one pixel from the straight line.
    """
    dy, dx = offset
    rows = range(min(0, dy), max(0, dy) + 1)
    columns = range(min(0, dx), max(0, dx) + 1)
    squared_length = dy * dy + dx * dx
    return [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < squared_length]


class _LinePeak(torch.autograd.Function):
    """Largest value on the line of each pair: (N, h, w) to (N, K, h, w), 0 for neighbors outside.

    The backward pass finds the peak pixel by its value, so ties share the gradient. Storing one
    value for each pixel of each line would need twelve times the memory.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, offsets: tuple[Offset, ...]) -> Tensor:
        num, height, width = maps.shape
        peak = maps.new_zeros(num, len(offsets), height, width)
        for tap, offset in enumerate(offsets):
            pixel, _ = pair_windows(offset, (height, width))
            first, *rest = _line_windows(offset, (height, width))
            largest = maps[:, *first].clone()
            for window in rest:
                torch.maximum(largest, maps[:, *window], out=largest)
            peak[:, tap, *pixel] = largest
        ctx.save_for_backward(maps, peak)
        ctx.offsets = offsets
        return peak

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        maps, peak = ctx.saved_tensors
        grad_maps = torch.zeros_like(maps)
        for tap, offset in enumerate(ctx.offsets):
            pixel, _ = pair_windows(offset, grad.shape[-2:])
            grad_peak, largest = grad[:, tap, *pixel], peak[:, tap, *pixel].contiguous()
            for window in _line_windows(offset, grad.shape[-2:]):
                is_peak = (maps[:, *window] == largest).to(grad_peak.dtype)
                grad_maps[:, *window].addcmul_(grad_peak, is_peak)
        return grad_maps, None


def _line_windows(offset: Offset, size: Sequence[int]) -> list[Window]:
    """List, for each pixel of the line, its window over all pairs whose neighbor is inside."""
    (rows, columns), _ = pair_windows(offset, size)
    return [
        (slice(rows.start + y, rows.stop + y), slice(columns.start + x, columns.stop + x))
        for y, x in line_pixels(offset)
    ]
