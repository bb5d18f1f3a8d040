"""Random walks along a stencil on the CPU, compiled by numba; one row of pixels per task.

A step adds to each pixel the weighted differences to its neighbors, which gives their weighted
mean. With a plain mean, float32 rounding in constant regions would be the same at every step and
add up over hundreds of steps. For the same reason, operations must not be reordered.

Each loop handles four neighbors as slices of rows, so that its iterations over consecutive pixels
become vector instructions. The weights of four neighbors are applied to all maps before the next
four are read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.compilation import compiled, on_torch_threads

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
GROUP = 4
"""Neighbors per loop."""


def cpu_walk(maps: Tensor, walk: Tensor, offsets: Sequence[tuple[int, int]], steps: int) -> Tensor:
    """Compute `random_walk` with normalized weights on the CPU.

    Args:
        maps: (N, M, H, W) float32.
        walk: (N, K, H, W) float32 weights that sum to 1 over K, 0 for neighbors outside.
        offsets: (dy, dx) of the K neighbors.
        steps: Number of steps.

    Returns:
        (N, M, H, W) float32.
    """
    height, width = maps.shape[-2:]
    missing = -len(offsets) % GROUP
    shifts = np.array([*offsets, *[(0, 0)] * missing], dtype=np.int64)
    reach = int(np.abs(shifts).max())
    rows = F.pad(walk, (0, 0, 0, 0, 0, missing)).transpose(1, 2).contiguous()  # (N, H, K, W)
    current = F.pad(maps, (reach,) * 4).contiguous()
    updated = torch.zeros_like(current)
    for _ in range(steps):
        on_torch_threads(_step, current.numpy(), rows.numpy(), shifts, updated.numpy())
        current, updated = updated, current
    return current[..., reach : reach + height, reach : reach + width].contiguous()


@compiled(parallel=True, exact=True)
def _step(current: Floats, walk: Floats, shifts: Integers, updated: Floats) -> None:
    """Fill the inside of `updated` from `current`, both (N, M, H + 2 reach, W + 2 reach)."""
    num, height, taps, width = walk.shape
    reach = (current.shape[3] - width) // 2
    for index in numba.prange(num * height):
        n, y = index // height, index % height
        updated[n, :, reach + y] = 0
        for tap in range(0, taps, GROUP):
            weight = walk[n, y, tap : tap + GROUP]
            for m in range(current.shape[1]):
                out = updated[n, m, reach + y, reach : reach + width]
                _add_group(current[n, m], reach + y, reach, shifts[tap : tap + GROUP], weight, out)
        updated[n, :, reach + y] += current[n, :, reach + y]


@compiled(exact=True)
def _add_group(
    plane: Floats, y: int, reach: int, shifts: Integers, weight: Floats, out: Floats
) -> None:
    """Add to `out` (W,) the differences of four neighbors to row `y`, times `weight` (4, W)."""
    width = len(out)
    center = plane[y, reach : reach + width]
    l0, l1, l2, l3 = (
        reach + shifts[0, 1],
        reach + shifts[1, 1],
        reach + shifts[2, 1],
        reach + shifts[3, 1],
    )
    r0 = plane[y + shifts[0, 0], l0 : l0 + width]
    r1 = plane[y + shifts[1, 0], l1 : l1 + width]
    r2 = plane[y + shifts[2, 0], l2 : l2 + width]
    r3 = plane[y + shifts[3, 0], l3 : l3 + width]
    w0, w1, w2, w3 = weight[0], weight[1], weight[2], weight[3]
    for x in range(width):
        c = center[x]
        out[x] += (
            w0[x] * (r0[x] - c) + w1[x] * (r1[x] - c) + w2[x] * (r2[x] - c) + w3[x] * (r3[x] - c)
        )
