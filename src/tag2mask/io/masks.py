"""Mask files: indexed PNG with the VOC palette, read, checked and written with Pillow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.io.images import PILLOW_ERRORS, SIXTEEN_BIT_MODES, one_line
from tag2mask.io.palette import voc_palette
from tag2mask.types import BACKGROUND, IGNORE, Mask

_INDEX_MODES = SIXTEEN_BIT_MODES | {"1", "L", "P"}


def read_mask(path: Path, num_foreground: int, size: tuple[int, int] | None = None) -> Mask:
    """Read a mask of class indices from a palette or gray image.

    Args:
        path: The mask file.
        num_foreground: F; pixel values 0..F and 255 are allowed.
        size: (H, W) of the image that the mask belongs to; None leaves the size unchecked.

    Raises:
        DataError: If the file is missing or broken, holds colors in place of indices, a value
            outside the classes, or has another size than its image.
    """
    raw = read_indices(path)
    values = np.unique(raw).astype(np.int64)
    strange = values[((values < BACKGROUND) | (values > num_foreground)) & (values != IGNORE)]
    if strange.size:
        raise DataError(
            f"{path}: pixel value {strange[0]} is no class "
            f"(0 is background, 1..{num_foreground} are classes, 255 is ignore)"
        )
    if size is not None and raw.shape != size:
        raise DataError(
            f"{path}: the mask is {raw.shape[1]}x{raw.shape[0]} px, "
            f"its image {size[1]}x{size[0]} px"
        )
    return raw.astype(np.uint8)


def read_indices(path: Path) -> npt.NDArray[Any]:
    """Read the (H, W) values of a palette or gray image; values are not checked.

    Raises:
        DataError: If the file is missing or broken, or contains colors instead of indices.
    """
    try:
        with PILImage.open(path) as picture:
            mode = picture.mode
            raw = np.asarray(picture) if mode in _INDEX_MODES else None
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: cannot be read as a mask ({one_line(error)})") from error
    if raw is None:
        raise DataError(
            f"{path}: is a {mode} color image; a mask is a palette or gray PNG of class indices"
        )
    return raw


def renumber(known: Sequence[str], chosen: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the (256,) table from mask values of `known` classes to those of the `chosen` ones.

    Background and ignore stay; classes that are not chosen become ignore.
    """
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[BACKGROUND] = BACKGROUND
    for value, name in enumerate(known, start=1):
        if name in chosen:
            table[value] = list(chosen).index(name) + 1
    return table


def save_mask(mask: Mask, path: Path) -> None:
    """Write an indexed PNG with the VOC palette; the file appears complete or not at all."""
    picture = PILImage.fromarray(mask)
    picture.putpalette(voc_palette().tobytes())  # turns the gray image into an indexed one
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    picture.save(temporary, format="PNG")
    temporary.replace(path)
