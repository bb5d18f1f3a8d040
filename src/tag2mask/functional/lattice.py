"""Gaussian filters of images whose cost does not depend on their width.

The kernel of two pixels is exp(-|f_i - f_j|^2 / 2), f being the place alone (`position_features`)
or place and color (`bilateral_features`), each divided by its width. The permutohedral lattice
approximates it up to a factor (about 0.54 for five features on images, which normalizing cancels):
compiled loops on the CPU (`lattice_cpu`), plain torch elsewhere (`lattice_torch`); both give the
same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from tag2mask.errors import DataError
from tag2mask.functional.lattice_cpu import build_cpu_lattice
from tag2mask.functional.lattice_torch import build_torch_lattice

MEMORY_MIB = 4096
"""Memory that the lattices of one image may take, unless a caller says otherwise."""
_SHARE_BYTES = {True: 8, False: 64}
"""Per pixel and corner of its simplex, on the CPU or not: index, weight and what finds them."""
_AXIS_BYTES = {True: 8, False: 32}
"""Per corner and axis, likewise: the neighbors."""
_KEY_BYTES = 64
"""Per corner: its key and what finds it."""


def position_features(height: int, width: int, sxy: float, device: torch.device) -> Tensor:
    """Lay out the place of each pixel.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        sxy: Width of the kernel in pixels; larger reaches farther.
        device: Where to.

    Returns:
        (height * width, 2) float32, x before y.
    """
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([x, y], dim=2).view(-1, 2).float() / sxy


def bilateral_features(image: Tensor, sxy: float, srgb: float) -> Tensor:
    """Lay out place and color of each pixel.

    Args:
        image: (3, H, W) uint8 RGB, or float in [0, 255].
        sxy: Width of the kernel in pixels.
        srgb: Width of the kernel in gray levels; larger looks past stronger edges.

    Returns:
        (H * W, 5) float32: x, y, R, G, B.
    """
    height, width = image.shape[-2:]
    place = position_features(height, width, sxy, image.device)
    return torch.cat([place, image.flatten(1).T.float() / srgb], dim=1)


def bilateral_filter(
    values: Tensor, image: Tensor, sxy: float, srgb: float, memory_mib: int = MEMORY_MIB
) -> Tensor:
    """Compute K v for a batch of images, K the bilateral kernel, not normalized.

    Args:
        values: (N, C, H, W) float32.
        image: (N, 3, H, W) uint8 RGB, or float in [0, 255].
        sxy: Width of the kernel in pixels.
        srgb: Width of the kernel in gray levels.
        memory_mib: Refuse images that need more memory.

    Returns:
        (N, C, H, W) float32.

    Raises:
        DataError: If an image needs more memory.
    """
    run = _filter_cpu if values.device.type == "cpu" else torch_bilateral_filter
    return run(values, image, sxy, srgb, memory_mib)


def torch_bilateral_filter(
    values: Tensor, image: Tensor, sxy: float, srgb: float, memory_mib: int
) -> Tensor:
    """Compute `bilateral_filter` in plain torch, all images in one lattice."""
    num, channels, height, width = values.shape
    most = most_corners(
        num * height * width,
        simplex=6,
        floats=5 + 2 * channels,
        channels=channels,
        memory_mib=memory_mib * num,
        on_cpu=False,
    )
    features = torch.stack([bilateral_features(single, sxy, srgb) for single in image])
    rows = values.permute(0, 2, 3, 1).reshape(-1, channels)
    moved = build_torch_lattice(features, most).filter(rows)
    return moved.view(num, height, width, channels).permute(0, 3, 1, 2)


def _filter_cpu(values: Tensor, image: Tensor, sxy: float, srgb: float, memory_mib: int) -> Tensor:
    """Compute `bilateral_filter` image by image."""
    num, channels, height, width = values.shape
    most = most_corners(
        height * width,
        simplex=6,
        floats=5 + 2 * channels,
        channels=channels,
        memory_mib=memory_mib,
        on_cpu=True,
    )
    result = torch.empty_like(values)

    def filter_image(n: int) -> None:
        features = bilateral_features(image[n], sxy, srgb)
        rows = values[n].flatten(1).T.contiguous()
        moved = build_cpu_lattice(features.numpy(), most).filter(rows.numpy())
        result[n] = torch.from_numpy(moved).T.view(channels, height, width)

    in_threads(filter_image, num)
    return result


def most_corners(
    pixels: int, *, simplex: int, floats: int, channels: int, memory_mib: int, on_cpu: bool
) -> int:
    """Divide memory: tell how many corners there is room for beside the pixels.

    Args:
        pixels: Of all images whose lattices are built together.
        simplex: Corners of a pixel's simplex, added up over the lattices.
        floats: Float32 values kept per pixel.
        channels: Values filtered at once.
        memory_mib: Memory that there is for it.
        on_cpu: Which lattice.

    Raises:
        DataError: If the pixels alone take more.
    """
    fixed = pixels * (_SHARE_BYTES[on_cpu] * simplex + 4 * floats)
    room = memory_mib * 2**20 - fixed
    if room <= 0:
        raise DataError(
            f"{pixels / 1e6:.1f} million pixels are too many for the lattice: they need "
            f"{math.ceil(fixed / 2**20)} MiB and the limit is {memory_mib} MiB; shrink the image "
            "(predict.max_side_px) or raise the limit (refiner.memory_mib)"
        )
    return room // (_KEY_BYTES + _AXIS_BYTES[on_cpu] * simplex + 8 * channels)


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Call `work` with 0..count-1, on as many threads as torch uses."""
    workers = min(count, torch.get_num_threads())
    if workers <= 1:
        for number in range(count):
            work(number)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(count)))
