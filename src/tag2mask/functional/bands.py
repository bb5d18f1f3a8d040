"""Resize large images and maps one band of rows at a time, so that memory stays bounded.

An image of 100 megapixels in float32 takes 1.2 GiB; a band of it takes a few MiB. Results equal
those of `torch.nn.functional.interpolate` up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.sizes import is_exporting

LARGE_PIXELS = 1 << 24
"""Images with more pixels are resized in bands. Smaller ones fit into memory at once."""
BAND_PIXELS = 1 << 20
"""Pixels of one band."""


def is_large(size: Sequence[int]) -> bool:
    """Return whether an image of (H, W) `size` is resized in bands; a symbol is not."""
    return not is_exporting() and size[0] * size[1] > LARGE_PIXELS


def bands(start: int, stop: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each band and the row after its last one.

    Args:
        start: First row.
        stop: Row after the last one.
        width: Pixels of a row.

    Example:
        >>> list(bands(0, 5, BAND_PIXELS // 2))
        [(0, 2), (2, 4), (4, 5)]
    """
    rows = max(1, BAND_PIXELS // width)
    for top in range(start, stop, rows):
        yield top, min(top + rows, stop)


def shrink(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, 3, H, W) uint8 images to `size` (h, w), bilinearly with antialiasing.

    Returns:
        (N, 3, h, w) float32.
    """
    height, width = image.shape[-2:]
    narrow = torch.empty((*image.shape[:2], height, size[1]), device=image.device)
    for top, bottom in bands(0, height, width):
        band = image[..., top:bottom, :].float()
        narrow[..., top:bottom, :] = _smooth(band, (bottom - top, size[1]))
    return _smooth(narrow, size)


def sample(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, 3, H, W) uint8 images to `size` (h, w), bilinearly between nearest pixels.

    Returns:
        (N, 3, h, w) float32.
    """
    parts = [
        upsample_rows(image, size, top, bottom)
        for top, bottom in bands(0, size[0], 2 * image.shape[-1])
    ]
    return torch.cat(parts, dim=-2)


def upsample_rows(maps: Tensor, size: tuple[int, int], start: int, stop: int) -> Tensor:
    """Return the rows from `start` up to `stop` of maps that are resized to a larger image.

    Args:
        maps: (N, C, h, w).
        size: (H, W) of the larger image.
        start: First row in [0, H).
        stop: Row after the last one.

    Returns:
        (N, C, stop - start, W) float32, bilinear, without aligned corners.

    Example:
        >>> maps = torch.rand(1, 2, 5, 7)
        >>> complete = F.interpolate(maps, size=(40, 50), mode="bilinear", align_corners=False)
        >>> torch.allclose(upsample_rows(maps, (40, 50), 8, 24), complete[..., 8:24, :], atol=1e-6)
        True
    """
    height = maps.shape[-2]
    position = torch.arange(start, stop, dtype=torch.float64, device=maps.device)
    position = ((position + 0.5) * (height / size[0]) - 0.5).clamp(0, height - 1)
    above = position.long()
    below = (above + 1).clamp_max(height - 1)
    share = (position - above).float()[:, None]
    first, last = int(above[0]), int(below[-1]) + 1
    if last - first < stop - start:  # many rows lie between the same two
        wide = _stretched(maps[..., first:last, :], size[1])
        return torch.lerp(wide[..., above - first, :], wide[..., below - first, :], share)
    upper, lower = (_stretched(maps[..., rows, :], size[1]) for rows in (above, below))
    return torch.lerp(upper, lower, share)


def _stretched(maps: Tensor, width: int) -> Tensor:
    """Resize the rows of maps to a width."""
    size = (maps.shape[-2], width)
    if maps.shape[-1] == width:
        return maps.float()
    return F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)


def _smooth(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly with antialiasing."""
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
