"""Convert NumPy arrays that hold an image in another form to (H, W, 3) uint8 RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tag2mask.errors import DataError
from tag2mask.io.depth import ValueRange, scale_to_8_bits
from tag2mask.types import Image

WHITE = 255.0
LARGEST = {"uint8": 255, "uint16": 65_535}
"""Largest value of each integer type that images have."""
CHANNELS = (1, 3, 4)
"""Gray, RGB, RGBA."""


def rgb_from_array(array: npt.NDArray[Any], value_range: ValueRange | None = None) -> Image:
    """Convert an image array to RGB.

    Accepted are (H, W) and (H, W, 1) gray, (H, W, 3) RGB and (H, W, 4) RGBA; as uint8, as uint16
    (scaled by its range), as other integers in 0..255, or as floats in [0, 1] (multiplied by 255).
    Transparent pixels are blended with white, as `read_image` does.

    Args:
        array: The image. Channels in OpenCV's order, BGR, cannot be recognized: reverse them.
        value_range: Values of uint16 that become 0 and 255; None: the image's own range.

    Returns:
        (H, W, 3) uint8; the array itself if it has that form already.

    Raises:
        DataError: If the array is no image, in one line that says how to convert it.
    """
    _check_shape(array)
    values = _to_uint8(array, value_range)
    if values.ndim == 2:
        values = values[..., None]
    if values.shape[2] == 4:
        share = values[..., 3:].astype(np.float32) / WHITE
        blended = values[..., :3] * share + WHITE * (1 - share)
        values = blended.round().astype(np.uint8)
    rgb: Image = values if values.shape[2] == 3 else values.repeat(3, axis=2)
    return rgb


def _check_shape(array: npt.NDArray[Any]) -> None:
    """Raise DataError unless the array is (H, W) or (H, W, channels) with at least one pixel."""
    shape = array.shape
    if array.ndim == 4:
        raise DataError(f"an array of shape {shape} holds several images; give list(array)")
    if array.ndim == 3 and shape[2] not in CHANNELS and shape[0] in CHANNELS:
        raise DataError(
            f"an array of shape {shape} has its channels first; give array.transpose(1, 2, 0)"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in CHANNELS):
        raise DataError(
            f"an array of shape {shape} is no image; give (H, W) gray, (H, W, 3) RGB or "
            "(H, W, 4) RGBA"
        )
    if 0 in shape:
        raise DataError(f"an array of shape {shape} has no pixels")


def _to_uint8(array: npt.NDArray[Any], value_range: ValueRange | None) -> npt.NDArray[np.uint8]:
    """Convert the values of an image to 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool or array.dtype.kind not in "uif":
        raise DataError(f"an array of {array.dtype} is no image; give uint8, or float in [0, 1]")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not (low >= 0 and high <= 1):  # also true for NaN
            raise DataError(
                f"float pixels lie in [0, 1], but these reach from {low:g} to {high:g}; scale "
                "them, or give uint8 in 0..255"
            )
        return (array.astype(np.float64) * 255).round().astype(np.uint8)
    largest = LARGEST.get(str(array.dtype), 255)
    if low < 0 or high > largest:
        raise DataError(
            f"pixels of {array.dtype} lie in 0..{largest}, but these reach from {low} to {high}; "
            "scale them to uint8"
        )
    return scale_to_8_bits(array, value_range) if largest > 255 else array.astype(np.uint8)
