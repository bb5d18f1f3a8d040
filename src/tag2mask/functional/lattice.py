"""Gaussian and bilateral filters of images, at a cost independent of the kernel's width.

The kernel of two pixels is exp(-|f_i - f_j|^2 / 2). Their features f are the position
(`position_features`) or position and color (`bilateral_features`), each divided by its width. The
permutohedral lattice approximates the kernel up to a factor (about 0.54 for five features of
images), which normalization cancels. Compiled loops run on the CPU (`lattice_cpu`) and plain torch
elsewhere (`lattice_torch`), with the same result.
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
"""Default memory limit for the lattices of one image."""
_WEIGHT_BYTES = {True: 8, False: 64}
"""Bytes per pixel and simplex corner, on the CPU or elsewhere: index, weight, temporaries."""
_AXIS_BYTES = {True: 8, False: 32}
"""Bytes per corner and axis, on the CPU or elsewhere: the neighbors."""
_KEY_BYTES = 64
"""Bytes per corner: its key and the table of keys."""


def position_features(height: int, width: int, sxy: float, device: torch.device) -> Tensor:
    """Compute the position features of each pixel.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        sxy: Width of the kernel in pixels.
        device: Device of the result.

    Returns:
        (height * width, 2) float32, x before y.
    """
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([x, y], dim=2).view(-1, 2).float() / sxy


def bilateral_features(image: Tensor, sxy: float, srgb: float) -> Tensor:
    """Compute the position and color features of each pixel.

    Args:
        image: (3, H, W) uint8 RGB, or float in [0, 255].
        sxy: Width of the kernel in pixels.
        srgb: Width of the kernel in gray levels. Larger values smooth across stronger edges.

    Returns:
        (H * W, 5) float32: x, y, R, G, B.
    """
    height, width = image.shape[-2:]
    position = position_features(height, width, sxy, image.device)
    return torch.cat([position, image.flatten(1).T.float() / srgb], dim=1)


def bilateral_filter(
    values: Tensor, image: Tensor, sxy: float, srgb: float, memory_mib: int = MEMORY_MIB
) -> Tensor:
    """Compute K v for a batch of images, with K the unnormalized bilateral kernel.

    Args:
        values: (N, C, H, W) float32.
        image: (N, 3, H, W) uint8 RGB, or float in [0, 255].
        sxy: Width of the kernel in pixels.
        srgb: Width of the kernel in gray levels.
        memory_mib: Memory limit per image in MiB.

    Returns:
        (N, C, H, W) float32.

    Raises:
        DataError: If an image needs more memory.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 8, 12), 40, dtype=torch.uint8)
        >>> image[..., 6:] = 200  # dark and bright half
        >>> one_pixel = torch.zeros(1, 1, 8, 12)
        >>> one_pixel[..., 4, 2] = 1
        >>> smooth = bilateral_filter(one_pixel, image, sxy=5, srgb=10)
        >>> bool(smooth[..., :6].min() > 0), smooth[..., 6:].max().item()  # stops at the edge
        (True, 0.0)
    """
    run = _filter_cpu if values.device.type == "cpu" else torch_bilateral_filter
    return run(values, image, sxy, srgb, memory_mib)


def torch_bilateral_filter(
    values: Tensor, image: Tensor, sxy: float, srgb: float, memory_mib: int
) -> Tensor:
    """Compute `bilateral_filter` in plain torch, with one lattice for all images."""
    num, channels, height, width = values.shape
    max_corners = corner_limit(
        num * height * width,
        simplex=6,
        floats=5 + 2 * channels,
        channels=channels,
        memory_mib=memory_mib * num,
        on_cpu=False,
    )
    features = torch.stack([bilateral_features(single, sxy, srgb) for single in image])
    rows = values.permute(0, 2, 3, 1).reshape(-1, channels)
    filtered = build_torch_lattice(features, max_corners).filter(rows)
    return filtered.view(num, height, width, channels).permute(0, 3, 1, 2)


def _filter_cpu(values: Tensor, image: Tensor, sxy: float, srgb: float, memory_mib: int) -> Tensor:
    """Compute `bilateral_filter` on the CPU, image by image."""
    num, channels, height, width = values.shape
    max_corners = corner_limit(
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
        filtered = build_cpu_lattice(features.numpy(), max_corners).filter(rows.numpy())
        result[n] = torch.from_numpy(filtered).T.view(channels, height, width)

    in_threads(filter_image, num)
    return result


def corner_limit(
    pixels: int, *, simplex: int, floats: int, channels: int, memory_mib: int, on_cpu: bool
) -> int:
    """Compute how many lattice corners fit in memory in addition to the values of the pixels.

    Args:
        pixels: Total number of pixels of the images whose lattices are built together.
        simplex: Corners of a pixel's simplex, summed over the lattices.
        floats: Float32 values stored per pixel.
        channels: Values filtered at a time.
        memory_mib: Memory limit in MiB.
        on_cpu: Whether the lattice is a `CpuLattice`; otherwise a `TorchLattice`.

    Raises:
        DataError: If the values of the pixels alone exceed the limit.
    """
    fixed = pixels * (_WEIGHT_BYTES[on_cpu] * simplex + 4 * floats)
    remaining = memory_mib * 2**20 - fixed
    if remaining <= 0:
        raise DataError(
            f"{pixels / 1e6:.1f} million pixels are too many for the lattice: they need "
            f"{math.ceil(fixed / 2**20)} MiB and the limit is {memory_mib} MiB; shrink the image "
            "(predict.max_side_px) or raise the limit (refiner.memory_mib)"
        )
    return remaining // (_KEY_BYTES + _AXIS_BYTES[on_cpu] * simplex + 8 * channels)


def in_threads(task: Callable[[int], None], count: int) -> None:
    """Call `task` with 0..count-1 on as many threads as torch uses."""
    workers = min(count, torch.get_num_threads())
    if workers <= 1:
        for number in range(count):
            task(number)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(task, range(count)))
