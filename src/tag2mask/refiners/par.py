"""PAR, pixel-adaptive refinement: probabilities flow between pixels that look alike and lie near.

Every pixel looks at its eight neighbours at each dilation (48 by default). A softmax over colour differences,
plus a small softmax over distances, says how much of each neighbour's probability it takes; repeat.

Source:
    AFA (arXiv 2203.02664), section 3.4, and its supplement, Tables 2 and 3; methods specification 2.4.
    The switches of `ParConfig` are those tables' rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tag2mask.recipe import Positive, RefinerConfig
from tag2mask.refiners.base import Refiner

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Floats = npt.NDArray[np.float32]
Offset = tuple[int, int]

GREY_LEVELS = 255.0
SPREAD_EPS = 1e-8
"""Added to the standard deviation of colours in [0, 1] (methods specification 2.4)."""
LEAST_VARIANCE = 1e-6
"""In grey levels squared. Below it the neighbours are one colour: that channel's term is then the same for all of
them, drops out of the softmax, and must not drown the other channels in float32."""


class ParConfig(RefinerConfig):
    """Settings of PAR; the defaults are the best row of the AFA supplement."""

    name: str = "par"
    """Refiner: a file of the folder `refiners`."""
    dilations: tuple[int, ...] = Field(default=(1, 2, 4, 8, 12, 24), min_length=1)
    """Distances in pixels at which the eight neighbours are taken."""
    iterations: int = Field(default=10, ge=0)
    """Rounds of averaging; 15 for COCO and in the ablation table."""
    w1: Positive = 0.3
    """Width of the colour kernel, in standard deviations; larger blurs over edges."""
    w2: Positive = 0.3
    """Width of the position kernel, in standard deviations of the distances."""
    w3: float = Field(default=0.01, ge=0)
    """Weight of the position kernel beside the colour kernel."""
    position: bool = True
    """Use the position kernel."""


class PAR(Refiner):
    """Pixel-adaptive refinement; one affinity per photo serves all its stacks.

    Returns float32 whatever comes in, since a sum of 1 does not survive half precision.
    """

    Config = ParConfig
    config: ParConfig

    @torch.no_grad()
    def refine(self, image: Tensor, prob: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `prob` by the (N, 3, H, W) `image`; float32, sums to 1 over C."""
        kernel = par_kernel(image, self.config)
        moved = par_iterate(
            prob.flatten(1, 2), kernel, self.config.dilations, self.config.iterations
        )
        moved = moved.view(prob.shape)
        return moved / moved.sum(dim=2, keepdim=True).clamp_min(torch.finfo(moved.dtype).tiny)


def par_kernel(image: Tensor, config: ParConfig) -> Tensor:
    """Compute how much every pixel takes of each of its K neighbours.

    Args:
        image: (N, 3, H, W) uint8 or float in [0, 255].
        config: Dilations, widths and weights.

    Returns:
        (N, K, H, W) float32, K = 8 per dilation, dilations in order and neighbours row by row. Sums over K to
        1 + w3, or to 1 without the position kernel.

    Source:
        AFA, Eq. 9 to 11; methods specification 2.4. Departs from the formula where a channel of all neighbours
        is one colour (see LEAST_VARIANCE); there the formula's limit is taken.
    """
    position = np.zeros(8 * len(config.dilations), dtype=np.float32)
    if config.position:
        position += np.float32(config.w3) * position_weights(config.dilations, config.w2)
    if image.device.type != "cpu":
        return kernel_by_torch(image, config.dilations, config.w1, torch.from_numpy(position))
    reach = max(config.dilations)
    padded = F.pad(image.float(), (reach, reach, 0, 0), mode="replicate").contiguous()
    num, _, height, width = image.shape
    kernel = torch.empty((num, height, len(position), width))
    shifts = np.array(neighbour_offsets(config.dilations), dtype=np.int64)
    _with_torch_threads(
        _kernel_rows, padded.numpy(), shifts, np.float32(config.w1), position, kernel.numpy()
    )
    return kernel.transpose(1, 2)


def par_iterate(maps: Tensor, kernel: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """Average maps over neighbours again and again, without renormalising.

    Args:
        maps: (N, M, H, W), any range and float type.
        kernel: (N, K, H, W) from `par_kernel` with the same dilations.
        dilations: In pixels.
        iterations: Rounds; each multiplies the sum over classes by the kernel's row sum.

    Returns:
        (N, M, H, W) float32.
    """
    if maps.device.type != "cpu":
        return iterate_by_torch(maps, kernel, dilations, iterations)
    reach = max(dilations)
    width = maps.shape[-1]
    here = F.pad(maps.float(), (reach, reach, 0, 0), mode="replicate").contiguous()
    there = torch.empty_like(here)
    weights = kernel.float().transpose(1, 2).contiguous()
    distances = np.array(dilations, dtype=np.int64)
    for _ in range(iterations):
        _with_torch_threads(_iterate_rows, here.numpy(), weights.numpy(), distances, there.numpy())
        here, there = there, here
    return here[..., reach : reach + width].contiguous()


def neighbour_offsets(dilations: Sequence[int]) -> list[Offset]:
    """(dy, dx) of the eight neighbours at each dilation, row by row, centre left out."""
    ring = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    return [(d * dy, d * dx) for d in dilations for dy, dx in ring]


def position_weights(dilations: Sequence[int], w2: float) -> Floats:
    """Softmax over the K neighbours of -(distance / (w2 * std of the distances))^2; the same at every pixel."""
    distance = np.array([math.hypot(dy, dx) for dy, dx in neighbour_offsets(dilations)])
    logit = -((distance / (w2 * distance.std(ddof=1))) ** 2)
    weight = np.exp(logit - logit.max())
    return (weight / weight.sum()).astype(np.float32)


def kernel_by_torch(image: Tensor, dilations: Sequence[int], w1: float, position: Tensor) -> Tensor:
    """`par_kernel` in plain torch, for accelerators; `position` is (K,), its weight included."""
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        reach = max(dilations)
        padded = F.pad(image, (reach,) * 4, mode="replicate")
        offsets = neighbour_offsets(dilations)
        mean = torch.zeros_like(image)
        for offset in offsets:
            mean += _shifted(padded, reach, offset)
        mean /= len(offsets)
        variance = torch.zeros_like(image)
        for offset in offsets:
            variance += (_shifted(padded, reach, offset) - mean).square_()
        variance /= len(offsets) - 1
        spread = w1 * (variance.sqrt() + GREY_LEVELS * SPREAD_EPS)
        inverse = torch.where(variance < LEAST_VARIANCE, 0.0, 1.0 / spread)
        logit = image.new_empty((image.shape[0], len(offsets), *image.shape[-2:]))
        for tap, offset in enumerate(offsets):
            step = (_shifted(padded, reach, offset) - image).mul_(inverse)
            logit[:, tap] = -step.square_().mean(dim=1)
        return logit.softmax(dim=1).add_(position.to(logit).view(1, -1, 1, 1))


def iterate_by_torch(
    maps: Tensor, kernel: Tensor, dilations: Sequence[int], iterations: int
) -> Tensor:
    """`par_iterate` in plain torch, for accelerators."""
    with torch.autocast(maps.device.type, enabled=False):
        here = maps.float()
        weights = kernel.float()
        reach = max(dilations)
        offsets = neighbour_offsets(dilations)
        for _ in range(iterations):
            padded = F.pad(here, (reach,) * 4, mode="replicate")
            here = torch.zeros_like(here)
            for tap, offset in enumerate(offsets):
                here.addcmul_(weights[:, tap : tap + 1], _shifted(padded, reach, offset))
        return here


def _shifted(padded: Tensor, reach: int, offset: Offset) -> Tensor:
    """Each pixel's neighbour at `offset`, as a view of maps padded by `reach` on every side."""
    height, width = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    top, left = reach + offset[0], reach + offset[1]
    return padded[..., top : top + height, left : left + width]


def _with_torch_threads(function: Callable[..., None], *arrays: Any) -> None:
    """Run a compiled function on as many threads as torch may use, then give numba its own number back."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    try:
        function(*arrays)
    finally:
        numba.set_num_threads(before)


def _compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile for all cores at the first call, once per machine where a cache folder can be written."""
    try:
        fast: Callable[Arguments, Result] = numba.njit(
            parallel=True, fastmath=True, cache=True, nogil=True
        )(function)
    except (
        RuntimeError
    ):  # numba finds no folder for its cache: a read-only installation without a home
        fast = numba.njit(parallel=True, fastmath=True, nogil=True)(function)
    return fast


@_compiled
def _kernel_rows(
    padded: Floats,
    shifts: npt.NDArray[np.int64],
    w1: np.float32,
    position: Floats,
    kernel: Floats,
) -> None:
    """Fill `kernel` (N, H, K, W) from `padded` (N, 3, H, W + 2 * reach), one image row at a time."""
    num, height, taps, width = kernel.shape
    reach = (padded.shape[3] - width) // 2
    for row in numba.prange(num * height):
        n, y = row // height, row % height
        out = kernel[n, y]
        out[:] = 0
        mean = np.empty(width, dtype=np.float32)
        inverse = np.empty(width, dtype=np.float32)
        for channel in range(3):
            plane = padded[n, channel]
            centre = plane[y, reach : reach + width]
            mean[:] = 0
            inverse[:] = 0
            for tap in range(taps):
                left = reach + shifts[tap, 1]
                near = plane[min(max(y + shifts[tap, 0], 0), height - 1), left : left + width]
                for x in range(width):
                    mean[x] += near[x]
            for x in range(width):
                mean[x] /= np.float32(taps)
            for tap in range(taps):
                left = reach + shifts[tap, 1]
                near = plane[min(max(y + shifts[tap, 0], 0), height - 1), left : left + width]
                for x in range(width):
                    inverse[x] += (near[x] - mean[x]) ** 2
            for x in range(width):
                variance = inverse[x] / np.float32(taps - 1)
                spread = w1 * (np.sqrt(variance) + np.float32(GREY_LEVELS * SPREAD_EPS))
                inverse[x] = (
                    np.float32(1) / (np.float32(3) * spread * spread)
                    if variance > np.float32(LEAST_VARIANCE)
                    else np.float32(0)
                )
            for tap in range(taps):
                left = reach + shifts[tap, 1]
                near = plane[min(max(y + shifts[tap, 0], 0), height - 1), left : left + width]
                for x in range(width):
                    out[tap, x] -= (near[x] - centre[x]) ** 2 * inverse[x]
        peak, total = mean, inverse
        peak[:] = out[0]
        total[:] = 0
        for tap in range(1, taps):
            for x in range(width):
                peak[x] = max(peak[x], out[tap, x])
        for tap in range(taps):
            for x in range(width):
                out[tap, x] = math.exp(out[tap, x] - peak[x])
                total[x] += out[tap, x]
        for tap in range(taps):
            for x in range(width):
                out[tap, x] = out[tap, x] / total[x] + position[tap]


@_compiled
def _iterate_rows(
    here: Floats, kernel: Floats, dilations: npt.NDArray[np.int64], there: Floats
) -> None:
    """One round: `there` (N, M, H, W + 2 * reach) from `here`, borders replicated again for the next round."""
    num, height, _, width = kernel.shape
    reach = (here.shape[3] - width) // 2
    for row in numba.prange(num * height):
        n, y = row // height, row % height
        for m in range(here.shape[1]):
            plane = here[n, m]
            out = there[n, m, y]
            out[reach : reach + width] = 0
            for ring in range(len(dilations)):
                d = dilations[ring]
                above, level, below = plane[max(y - d, 0)], plane[y], plane[min(y + d, height - 1)]
                k = kernel[n, y, 8 * ring : 8 * ring + 8]
                left = reach - d
                for x in range(width):
                    out[reach + x] += (
                        k[0, x] * above[left + x]
                        + k[1, x] * above[left + d + x]
                        + k[2, x] * above[left + 2 * d + x]
                        + k[3, x] * level[left + x]
                        + k[4, x] * level[left + 2 * d + x]
                        + k[5, x] * below[left + x]
                        + k[6, x] * below[left + d + x]
                        + k[7, x] * below[left + 2 * d + x]
                    )
            out[:reach] = out[reach]
            out[reach + width :] = out[reach + width - 1]
