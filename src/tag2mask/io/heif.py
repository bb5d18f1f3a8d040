"""Open image files with Pillow, HEIC among them if its extra is installed."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from tag2mask.errors import MissingExtraError

HEIF_SUFFIXES = frozenset((".heic", ".heif"))
EXTRA = "heic"
_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
"""Bytes 8 to 12 of a HEIF file (ISO/IEC 23008-12, annex B)."""


def open_image(path: Path) -> PILImage.Image:
    """Open an image file without decoding its pixels.

    Raises:
        OSError: If the file is missing or no image, or a HEIC image without the extra; the message
            then says what to install.
    """
    try:
        return PILImage.open(path)
    except UnidentifiedImageError as error:
        if not is_heif(path):
            raise
        if not can_read_heif():
            raise OSError(f"a HEIC image; {MissingExtraError(EXTRA)}") from error
    return PILImage.open(path)


def is_heif(path: Path) -> bool:
    """Return whether a file begins as HEIF does, whatever its suffix."""
    with path.open("rb") as stream:
        header = stream.read(12)
    return header[4:8] == b"ftyp" and header[8:] in _BRANDS


@cache
def can_read_heif() -> bool:
    """Register Pillow's plug-in for HEIF; return False if the extra is not installed."""
    try:
        plugin = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    plugin.register_heif_opener()
    return True
