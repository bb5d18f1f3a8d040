"""Random walks along a stencil on the CPU, compiled by numba: one row of pixels per unit of work.

A step adds to each pixel its weighted differences from the neighbors, which gives their weighted
mean. Float32 then rounds differences: on level ground the rounding of a mean is the same at every
step, and adds up over hundreds of them. (For the same reason operations must not be reordered.)

Four neighbors are taken at a time, as slices of rows: the innermost loop runs over neighboring
pixels and becomes vector instructions. The weights of four neighbors serve all maps before the
next four are read.
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
"""Neighbors taken in one loop."""


def cpu_walk(maps: Tensor, walk: Tensor, offsets: Sequence[tuple[int, int]], steps: int) -> Tensor:
    """Walk `steps` times.

    Args:
        maps: (N, M, H, W) float32.
        walk: (N, K, H, W) float32, normalized weights; 0 for neighbors outside.
        offsets: (dy, dx) of the K neighbors.
        steps: Number of steps.

    Returns:
        (N, M, H, W) float32.
    """
    height, width = maps.shape[-2:]
    spare = -len(offsets) % GROUP
    shifts = np.array([*offsets, *[(0, 0)] * spare], dtype=np.int64)
    reach = int(np.abs(shifts).max())
    rows = F.pad(walk, (0, 0, 0, 0, 0, spare)).transpose(1, 2).contiguous()  # (N, H, K, W)
    here = F.pad(maps, (reach,) * 4).contiguous()
    there = torch.zeros_like(here)
    for _ in range(steps):
        on_torch_threads(_step, here.numpy(), rows.numpy(), shifts, there.numpy())
        here, there = there, here
    return here[..., reach : reach + height, reach : reach + width].contiguous()


@compiled(parallel=True, exact=True)
def _step(here: Floats, walk: Floats, shifts: Integers, there: Floats) -> None:
    """One step: the inside of `there` from `here`, both (N, M, H + 2 reach, W + 2 reach)."""
    num, height, taps, width = walk.shape
    reach = (here.shape[3] - width) // 2
    for index in numba.prange(num * height):
        n, y = index // height, index % height
        there[n, :, reach + y] = 0
        for tap in range(0, taps, GROUP):
            weight = walk[n, y, tap : tap + GROUP]
            for m in range(here.shape[1]):
                out = there[n, m, reach + y, reach : reach + width]
                _add_group(here[n, m], reach + y, reach, shifts[tap : tap + GROUP], weight, out)
        there[n, :, reach + y] += here[n, :, reach + y]


@compiled(exact=True)
def _add_group(
    plane: Floats, y: int, reach: int, shifts: Integers, weight: Floats, out: Floats
) -> None:
    """Add to `out` (W,) how row `y` of a padded plane differs from four neighbors, by (4, W)."""
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
