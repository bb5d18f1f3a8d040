"""Read one image for a check: whether it decodes, its size, its fingerprint, its mask."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image as PILImage
from PIL import ImageOps

from tag2mask.data.checks.near_duplicates import Fingerprint, fingerprint
from tag2mask.data.index import DatasetIndex
from tag2mask.errors import DataError
from tag2mask.io.heif import open_image
from tag2mask.io.images import PILLOW_ERRORS, one_line, read_image
from tag2mask.io.masks import has_few_colors
from tag2mask.types import BACKGROUND, IGNORE

_ORIENTATION = 0x0112
_SIDES_SWAPPED = frozenset((5, 6, 7, 8))
"""EXIF orientations that turn an image by a quarter."""
_SMALL_PX = 64
"""A JPEG is decoded at the smallest scale of at least this side: as many bytes, fewer pixels."""


class InspectedImage(NamedTuple):
    """What a check needs to know of one image."""

    size: tuple[int, int] | None
    """(width, height) after EXIF orientation; None if unreadable."""
    problem: str | None
    """Why the image cannot be read."""
    fingerprint: Fingerprint | None
    is_mask: bool
    """Whether the image is probably a mask."""
    mask_problem: str | None
    shows_class: bool
    """Whether its mask contains a foreground pixel."""


def inspect_image(dataset_index: DatasetIndex, name: str) -> InspectedImage:
    """Read one image of a data set and, if there is one, its mask."""
    path = dataset_index.images[name]
    size, problem, print_ = None, None, None
    try:
        size, print_ = _decode(path)
    except PILLOW_ERRORS as error:
        problem = f"{path}: cannot be read as an image ({one_line(error)})"
    except DataError as error:
        problem = str(error)
    is_mask = problem is None and has_few_colors(path)
    mask_problem, shows_class = _inspect_mask(dataset_index, name, size)
    return InspectedImage(size, problem, print_, is_mask, mask_problem, shows_class)


def _decode(path: Path) -> tuple[tuple[int, int], Fingerprint]:
    """Decode all bytes of an image.

    Returns:
        (width, height) upright, and the fingerprint.
    """
    with open_image(path) as opened:
        if opened.format == "JPEG":
            width, height = opened.size
            if opened.getexif().get(_ORIENTATION, 1) in _SIDES_SWAPPED:
                width, height = height, width
            opened.draft("L", (_SMALL_PX, _SMALL_PX))
            return (width, height), fingerprint(ImageOps.exif_transpose(opened))
    image = PILImage.fromarray(read_image(path))
    return image.size, fingerprint(image)


def _inspect_mask(
    dataset_index: DatasetIndex, name: str, size: tuple[int, int] | None
) -> tuple[str | None, bool]:
    """Return why the mask of an image cannot be used, and whether it shows a class."""
    if name not in dataset_index.masks:
        return None, False
    classes = dataset_index.mask_classes or dataset_index.tag_names
    try:
        values = dataset_index.read_mask(name, len(classes), (size[1], size[0]) if size else None)
    except DataError as error:
        return str(error), False
    return None, bool(((values != BACKGROUND) & (values != IGNORE)).any())
