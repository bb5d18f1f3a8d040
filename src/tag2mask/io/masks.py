"""Read, check and write mask files with Pillow: indexed PNG with the VOC palette."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.io.files import replacing
from tag2mask.io.heif import open_image
from tag2mask.io.images import PILLOW_ERRORS, SIXTEEN_BIT_MODES, one_line
from tag2mask.io.palette import voc_palette
from tag2mask.types import BACKGROUND, IGNORE, Mask

_LOSSLESS = frozenset(("PNG", "BMP", "TIFF", "PPM"))
_MOST_MASK_VALUES = 32
_SMALLEST_MASK_PX = 16
_INDEX_MODES = SIXTEEN_BIT_MODES | {"1", "L", "P"}


def read_mask(path: Path, num_foreground: int, size: tuple[int, int] | None = None) -> Mask:
    """Read a mask of class indices from a palette or gray image.

    Args:
        path: The mask file.
        num_foreground: F; pixel values 0..F and 255 are allowed.
        size: (H, W) of the image that the mask belongs to; None skips the check of the size.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: If the file is missing or damaged, contains colors instead of indices or a value
            that is no class, or has a different size than its image.
    """
    raw = read_indices(path)
    values = np.unique(raw).astype(np.int64)
    unknown = values[((values < BACKGROUND) | (values > num_foreground)) & (values != IGNORE)]
    if unknown.size:
        raise DataError(
            f"{path}: pixel value {unknown[0]} is no class "
            f"(0 is background, 1..{num_foreground} are classes, 255 is ignore)"
        )
    if size is not None and raw.shape != size:
        raise DataError(
            f"{path}: the mask has {raw.shape[1]}x{raw.shape[0]} px, but its image has "
            f"{size[1]}x{size[0]} px"
        )
    return raw.astype(np.uint8)


def read_indices(path: Path) -> npt.NDArray[Any]:
    """Read the (H, W) values of a palette or gray image; values are not checked.

    Raises:
        DataError: If the file is missing or broken, or contains colors instead of indices.
    """
    try:
        with open_image(path) as opened:
            mode = opened.mode
            raw = np.asarray(opened) if mode in _INDEX_MODES else None
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: cannot be read as a mask ({one_line(error)})") from error
    if raw is None:
        raise DataError(
            f"{path}: a color image ({mode}); save the mask as a palette or gray PNG of class "
            "indices"
        )
    return raw


def is_probably_mask(path: Path) -> bool:
    """Return whether an image file has indices as pixels, of so few values that it is a mask.

    Only files without loss count, because lossy ones blur values, and only those of 16 px or more.
    Unreadable files are no masks.
    """
    return _has_few_values(path, _INDEX_MODES)


def has_few_colors(path: Path) -> bool:
    """Return whether an image file is a mask by `is_probably_mask`, or one drawn in colors."""
    return _has_few_values(path, _INDEX_MODES | {"RGB", "RGBA"})


def _has_few_values(path: Path, modes: Container[str]) -> bool:
    """Return whether an image file of some pixel modes has at most 32 different values."""
    try:
        with open_image(path) as opened:
            if opened.format not in _LOSSLESS or min(opened.size) < _SMALLEST_MASK_PX:
                return False
            if opened.mode not in modes:
                return False
            if opened.mode in SIXTEEN_BIT_MODES:
                return np.unique(np.asarray(opened)).size <= _MOST_MASK_VALUES
            return opened.getcolors(_MOST_MASK_VALUES) is not None
    except PILLOW_ERRORS:
        return False


def renumber(known: Sequence[str], chosen: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the (256,) table that maps mask values of `known` classes to values of `chosen` ones.

    Background and ignore stay unchanged; classes that are not chosen become ignore.
    """
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[BACKGROUND] = BACKGROUND
    for value, name in enumerate(known, start=1):
        if name in chosen:
            table[value] = list(chosen).index(name) + 1
    return table


def save_mask(mask: Mask, path: Path) -> None:
    """Write an (H, W) uint8 mask as indexed PNG with the VOC palette, completely or not at all."""
    image = PILImage.fromarray(mask)
    image.putpalette(voc_palette().tobytes())  # converts the gray image to an indexed one
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
