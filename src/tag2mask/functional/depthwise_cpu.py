"""Weight gradient of a depthwise convolution on the CPU, compiled by numba.

oneDNN computes it slowly for kernels above 3 x 3 and for dilated kernels. Here, a task takes 32
channels of every image, copies them into buffers with their padding, and adds for each tap of the
kernel the products of shifted input and output gradient. Pixels and channels of a row are one loop,
so that it becomes vector instructions.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tag2mask.functional.compilation import compiled, on_torch_threads

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
BLOCK = 32
"""Channels per task."""


def weight_gradient(
    maps: Tensor,
    gradient: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Compute the gradient of the weight of a depthwise convolution on the CPU.

    Args:
        maps: (N, D, H, W) input.
        gradient: (N, D, h, w) gradient of the output.
        kernel: Vertical and horizontal size, like the next three.
        stride: In pixels.
        padding: On both sides.
        dilation: Distance of taps in pixels.

    Returns:
        (D, 1, *kernel) float32.
    """
    sums = np.zeros((*kernel, maps.shape[1]), dtype=np.float32)
    settings = np.array([*stride, *padding, *dilation], dtype=np.int64)
    on_torch_threads(_add_tasks, _rows(maps), _rows(gradient), settings, sums)
    return torch.from_numpy(sums).permute(2, 0, 1)[:, None]


def _rows(maps: Tensor) -> Floats:
    """Convert an (N, D, H, W) map to a float32 array (N, H, W, D)."""
    rows: Floats = maps.detach().float().permute(0, 2, 3, 1).contiguous().numpy()
    return rows


@compiled(parallel=True)
def _add_tasks(maps: Floats, gradient: Floats, settings: Integers, sums: Floats) -> None:
    """Add the products of all images to `sums`, (kernel, kernel, D)."""
    channels = maps.shape[3]
    for task in numba.prange((channels + BLOCK - 1) // BLOCK):
        start = task * BLOCK
        _add_block(maps, gradient, settings, start, min(BLOCK, channels - start), sums)


@compiled()
def _add_block(
    maps: Floats, gradient: Floats, settings: Integers, start: int, block: int, sums: Floats
) -> None:
    """Add the products of `block` channels from `start` to `sums`."""
    num, height, width = gradient.shape[:3]
    stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x = settings
    length = width * block
    rows = max(maps.shape[1] + 2 * pad_y, height * stride_y + sums.shape[0] * dilation_y)
    columns = (maps.shape[2] + 2 * pad_x) // stride_x + 1
    # Columns with the same remainder modulo the stride lie together.
    inner = np.zeros((rows, stride_x, columns * block), dtype=np.float32)
    outer = np.zeros((height, 1, length), dtype=np.float32)
    totals = np.zeros((sums.shape[0], sums.shape[1], length), dtype=np.float32)
    for image in range(num):
        _copy(maps[image], start, block, pad_y, pad_x, inner)
        _copy(gradient[image], start, block, 0, 0, outer)
        for tap_y in range(sums.shape[0]):
            for tap_x in range(sums.shape[1]):
                column = tap_x * dilation_x // stride_x
                phase = tap_x * dilation_x - column * stride_x
                begin = column * block
                total = totals[tap_y, tap_x]
                for y in range(height):
                    row = y * stride_y + tap_y * dilation_y
                    left = inner[row, phase, begin : begin + length]
                    right = outer[y, 0]
                    for index in range(length):
                        total[index] += left[index] * right[index]
    for tap_y in range(sums.shape[0]):
        for tap_x in range(sums.shape[1]):
            for index in range(length):
                sums[tap_y, tap_x, start + index % block] += totals[tap_y, tap_x, index]


@compiled()
def _copy(image: Floats, start: int, block: int, top: int, left: int, target: Floats) -> None:
    """Copy `block` channels of an (H, W, D) image behind `top` rows and `left` columns."""
    phases = target.shape[1]
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            column = (x + left) // phases
            begin = column * block
            source = image[y, x, start : start + block]
            copy = target[y + top, x + left - column * phases, begin : begin + block]
            for channel in range(block):
                copy[channel] = source[channel]
