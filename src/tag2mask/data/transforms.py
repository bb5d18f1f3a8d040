"""Training augmentation: random size, mirror, colors, random square crop.

Only the pixels that the crop keeps are resized; they equal those of resizing the whole image and
cropping afterwards, bit for bit.
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

_BILINEAR = PILImage.Resampling.BILINEAR


class Augmented(NamedTuple):
    """A square training crop."""

    image: Image
    """(S, S, 3) uint8 RGB; black where there is no image."""
    mask: Mask | None
    """(S, S); IGNORE where there is no image."""
    valid: npt.NDArray[np.bool_]
    """(S, S); True on image pixels (a box)."""


class _Span(NamedTuple):
    """Crop along one axis: resized image pixels [start, stop) land from crop pixel `offset` on."""

    size: int
    """Length of the resized image."""
    start: int
    stop: int
    offset: int


def augment(sample: Sample, config: DataConfig, rng: np.random.Generator) -> Augmented:
    """Resize, mirror, recolor and crop one sample at random.

    Every call draws six numbers, whatever the sizes: size, mirror, padding offset (y, x), window
    (y, x). What a change of colors draws comes after them, so that crops are the same without it.

    Args:
        sample: Image of any size, with or without a mask.
        config: Crop side, range of sizes, share of mirrored images, change of colors.
        rng: Source of chance; the same state gives the same crop.

    Source:
        AFA's training pipeline, Specification 2.10: scale U(min, max) to int(s w) x
        int(s h), bilinear (masks nearest); mirror; paste at a random offset into a zero canvas
        max(S, h) x max(S, w); random window.
        Departs: a side never shrinks below 1 pixel. Colors are changed on the crop's own pixels.
    """
    size_u, flip_u, *place_u = rng.random(6)
    side = config.crop_px
    height, width = _resized(sample.image.shape[:2], config, size_u)
    rows = _place(height, side, place_u[0], place_u[2])
    columns = _place(width, side, place_u[1], place_u[3])
    mirrored = bool(flip_u < config.flip)
    source_columns = _mirror(columns) if mirrored else columns

    image = np.zeros((side, side, 3), dtype=np.uint8)
    valid = np.zeros((side, side), dtype=np.bool_)
    box = (
        slice(rows.offset, rows.offset + rows.stop - rows.start),
        slice(columns.offset, columns.offset + columns.stop - columns.start),
    )
    window = _oriented(_bilinear_window(sample.image, rows, source_columns), mirrored)
    image[box] = jitter_colors(window, config, rng)
    valid[box] = True
    if sample.mask is None:
        return Augmented(image, None, valid)
    mask = np.full((side, side), IGNORE, dtype=np.uint8)
    mask[box] = _oriented(_nearest_window(sample.mask, rows, source_columns), mirrored)
    return Augmented(image, mask, valid)


def _resized(size: Sequence[int], config: DataConfig, size_u: float) -> tuple[int, int]:
    """Choose (H, W) of the resized image by a number in [0, 1): a long side, or a factor.

    Source:
        Long side: Specification 4.1 and 4.2, whole numbers min to max, the other side in
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


def _place(size: int, side: int, pad_u: float, window_u: float) -> _Span:
    """Choose offset and window on one axis from two numbers in [0, 1); only one has any room."""
    if size <= side:
        return _Span(size, 0, size, int(pad_u * (side - size + 1)))
    start = int(window_u * (size - side + 1))
    return _Span(size, start, start + side, 0)


def _mirror(span: _Span) -> _Span:
    """The window whose mirror image is the window `span` of the mirrored image."""
    return span._replace(start=span.size - span.stop, stop=span.size - span.start)


def _oriented(window: npt.NDArray[np.uint8], mirrored: bool) -> npt.NDArray[np.uint8]:
    return window[:, ::-1] if mirrored else window


def _bilinear_window(image: Image, rows: _Span, columns: _Span) -> Image:
    """Return window (rows, columns) of `image` resized bilinearly to rows.size x columns.size.

    Pillow enlarges along x, rounds to bytes, then along y. Doing the two passes apart lets the
    first skip the rows and the second the columns that nobody needs. (Its `box` argument would skip
    more, but rounds the box to single precision: 3 % of the values then differ.) When it shrinks,
    the order of the passes depends on the shape and little can be skipped: all is resized.
    """
    height, width = image.shape[:2]
    if rows.size < height or columns.size < width:
        whole = PILImage.fromarray(image).resize((columns.size, rows.size), _BILINEAR)
        return np.asarray(whole.crop((columns.start, rows.start, columns.stop, rows.stop)))
    step = height / rows.size
    top = max(0, math.floor((rows.start + 0.5) * step) - 2)  # two rows feed each output row
    bottom = min(height, math.ceil((rows.stop - 0.5) * step) + 2)
    strip = PILImage.fromarray(image[top:bottom]).resize((columns.size, bottom - top), _BILINEAR)
    narrow = PILImage.new("RGB", (columns.stop - columns.start, height))
    narrow.paste(strip.crop((columns.start, 0, columns.stop, bottom - top)), (0, top))
    tall = narrow.resize((narrow.width, rows.size), _BILINEAR)
    return np.asarray(tall.crop((0, rows.start, tall.width, rows.stop)))


def _nearest_window(mask: Mask, rows: _Span, columns: _Span) -> Mask:
    """Return window (rows, columns) of `mask` resized (nearest) to rows.size x columns.size."""
    whole = PILImage.fromarray(mask).resize((columns.size, rows.size), PILImage.Resampling.NEAREST)
    return np.asarray(whole.crop((columns.start, rows.start, columns.stop, rows.stop)))
