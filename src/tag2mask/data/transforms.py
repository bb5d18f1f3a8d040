"""Training augmentation: random size, flip, color jitter and random square crop.

Only the pixels inside the crop are resized; they equal, bit for bit, those of resizing the complete
image and cropping afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.config.schema import DataConfig
from tag2mask.data.color_jitter import jitter_colors
from tag2mask.types import IGNORE, Image, Mask, Sample

Color = tuple[int, int, int]
"""RGB in 0..255."""
BLACK: Color = (0, 0, 0)
_BILINEAR = PILImage.Resampling.BILINEAR


class Augmented(NamedTuple):
    """A square training crop."""

    image: Image
    """(S, S, 3) uint8 RGB; one color on padding."""
    mask: Mask | None
    """(S, S); IGNORE on padding."""
    valid: npt.NDArray[np.bool_]
    """(S, S); True on image pixels (a box), False on padding."""


class _CropAxis(NamedTuple):
    """Crop along one axis: pixels [start, stop) of the resized image go to crop pixel `offset`."""

    size: int
    """Length of the resized image."""
    start: int
    stop: int
    offset: int


def augment(
    sample: Sample, config: DataConfig, rng: np.random.Generator, padding: Color = BLACK
) -> Augmented:
    """Resize, flip, color-jitter and crop one sample at random.

    Every call draws six numbers for any size: size, flip, padding offset (y, x), window (y, x).
    Color jitter draws its numbers afterwards, so that it does not change the crops.

    Args:
        sample: Image of any size, with or without a mask.
        config: Crop side, range of sizes, probability of a flip, color jitter.
        rng: Random generator; the same state gives the same crop.
        padding: Color around an image that is smaller than the crop.

    Source:
        AFA's training pipeline, Specification 2.10: scale U(min, max) to int(s w) x
        int(s h), bilinear (masks nearest); flip; paste at a random offset into a zero canvas
        max(S, h) x max(S, w); random window.
        Departs: a side never shrinks below 1 pixel. Colors are jittered on the crop's own pixels.
    """
    size_u, flip_u, *crop_u = rng.random(6)
    side = config.crop_px
    height, width = _resized_size(sample.image.shape[:2], config, size_u)
    rows = _choose_window(height, side, crop_u[0], crop_u[2])
    columns = _choose_window(width, side, crop_u[1], crop_u[3])
    flipped = bool(flip_u < config.flip)
    source_columns = _flip_window(columns) if flipped else columns

    image = np.full((side, side, 3), padding, dtype=np.uint8)
    valid = np.zeros((side, side), dtype=np.bool_)
    box = (
        slice(rows.offset, rows.offset + rows.stop - rows.start),
        slice(columns.offset, columns.offset + columns.stop - columns.start),
    )
    window = _flip_pixels(_bilinear_window(sample.image, rows, source_columns), flipped)
    image[box] = jitter_colors(window, config, rng)
    valid[box] = True
    if sample.mask is None:
        return Augmented(image, None, valid)
    mask = np.full((side, side), IGNORE, dtype=np.uint8)
    mask[box] = _flip_pixels(_nearest_window(sample.mask, rows, source_columns), flipped)
    return Augmented(image, mask, valid)


def _resized_size(size: Sequence[int], config: DataConfig, size_u: float) -> tuple[int, int]:
    """Choose (H, W) of the resized image by a number in [0, 1): a long side, or a factor.

    Source:
        Long side: Specification 4.1 and 4.2, integers from min to max, the other side in
        proportion. Departs: bilinear as all resizing here, not bicubic.
    """
    height, width = size
    shortest, longest = config.long_side_min_px, config.long_side_max_px
    if shortest is not None and longest is not None:
        long_side = shortest + int(size_u * (longest - shortest + 1))
        ratio = long_side / max(height, width)
        return max(1, round(height * ratio)), max(1, round(width * ratio))
    scale = config.scale_min + (config.scale_max - config.scale_min) * size_u
    return max(1, int(scale * height)), max(1, int(scale * width))


def _choose_window(size: int, side: int, pad_u: float, window_u: float) -> _CropAxis:
    """Choose padding offset or window on one axis from two numbers in [0, 1); one is unused."""
    if size <= side:
        return _CropAxis(size, 0, size, int(pad_u * (side - size + 1)))
    start = int(window_u * (size - side + 1))
    return _CropAxis(size, start, start + side, 0)


def _flip_window(axis: _CropAxis) -> _CropAxis:
    """Return the window of the unflipped image that contains the same pixels, in reverse order."""
    return axis._replace(start=axis.size - axis.stop, stop=axis.size - axis.start)


def _flip_pixels(window: npt.NDArray[np.uint8], flipped: bool) -> npt.NDArray[np.uint8]:
    return window[:, ::-1] if flipped else window


def _bilinear_window(image: Image, rows: _CropAxis, columns: _CropAxis) -> Image:
    """Return window (rows, columns) of `image` resized bilinearly to rows.size x columns.size.

    Pillow enlarges along x, rounds to bytes, then enlarges along y. Two separate passes let the
    first skip rows and the second skip columns that are not needed. (Pillow's `box` argument would
    skip more, but it rounds the box to single precision, and 3 % of the values then differ.) When
    Pillow shrinks, the order of the passes depends on the shape and little can be skipped, so the
    complete image is resized.
    """
    height, width = image.shape[:2]
    if rows.size < height or columns.size < width:
        resized = PILImage.fromarray(image).resize((columns.size, rows.size), _BILINEAR)
        return np.asarray(resized.crop((columns.start, rows.start, columns.stop, rows.stop)))
    step = height / rows.size
    top = max(0, math.floor((rows.start + 0.5) * step) - 2)  # two rows feed each output row
    bottom = min(height, math.ceil((rows.stop - 0.5) * step) + 2)
    strip = PILImage.fromarray(image[top:bottom]).resize((columns.size, bottom - top), _BILINEAR)
    narrow = PILImage.new("RGB", (columns.stop - columns.start, height))
    narrow.paste(strip.crop((columns.start, 0, columns.stop, bottom - top)), (0, top))
    tall = narrow.resize((narrow.width, rows.size), _BILINEAR)
    return np.asarray(tall.crop((0, rows.start, tall.width, rows.stop)))


def _nearest_window(mask: Mask, rows: _CropAxis, columns: _CropAxis) -> Mask:
    """Return window (rows, columns) of `mask` resized (nearest) to rows.size x columns.size."""
    size = (columns.size, rows.size)
    resized = PILImage.fromarray(mask).resize(size, PILImage.Resampling.NEAREST)
    return np.asarray(resized.crop((columns.start, rows.start, columns.stop, rows.stop)))
