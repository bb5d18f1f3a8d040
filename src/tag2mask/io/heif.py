"""Open image files with Pillow, HEIC among them if its extra is installed."""

from __future__ import annotations

import importlib
import stat
from functools import cache
from pathlib import Path

from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from tag2mask.errors import MissingExtraError
from tag2mask.io.text_files import NOT_REGULAR, open_regular

HEIF_SUFFIXES = frozenset((".heic", ".heif"))
EXTRA = "heic"
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF")
"""What Pillow may open. Its other formats start programs (PostScript), or are rarely tested."""
_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
"""Bytes 8 to 12 of a HEIF file (ISO/IEC 23008-12, annex B)."""


def open_image(path: Path) -> PILImage.Image:
    """Open an image file without decoding its pixels; the file decides the format, not its suffix.

    Raises:
        OSError: If the file is missing, no regular file (reading a named pipe would wait), no image
            of `FORMATS`, or a HEIC image without the extra; the message then says what to install.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(NOT_REGULAR)
    try:
        return PILImage.open(path, formats=_formats())
    except UnidentifiedImageError as error:
        if not is_heif(path):
            raise
        if not can_read_heif():
            raise OSError(f"a HEIC image; {MissingExtraError(EXTRA)}") from error
    return PILImage.open(path, formats=("HEIF",))


def is_heif(path: Path) -> bool:
    """Return whether a file begins as HEIF does, whatever its suffix."""
    with open_regular(path) as stream:
        header = stream.read(12)
    return header[4:8] == b"ftyp" and header[8:] in _BRANDS


@cache
def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this build of Pillow has."""
    PILImage.init()
    return tuple(name for name in FORMATS if name in PILImage.OPEN)


@cache
def can_read_heif() -> bool:
    """Register Pillow's plug-in for HEIF; return False if the extra is not installed."""
    try:
        plugin = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    plugin.register_heif_opener()
    return True
