"""Image and mask files: found, checked and read into arrays with Pillow, whatever their mode."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps

from tag2mask.errors import DataError
from tag2mask.types import Image

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
)
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    PILImage.DecompressionBombError,
)
"""What Pillow raises on a damaged file, by format."""
SIXTEEN_BIT_MODES = frozenset(("I", "I;16", "I;16B", "I;16L", "I;16N"))
_WHITE = (255, 255, 255, 255)
_FILE_END = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
"""Last bytes of a whole file; others may follow in files that are whole all the same."""


def list_images(folder: Path) -> list[Path]:
    """Return every image below `folder`, sorted by path; hidden files and folders are left out.

    Raises:
        DataError: If the folder is missing, or a file name is not UTF-8.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = []
    entered = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        folders[:] = [] if real in entered else [name for name in folders if name[0] != "."]
        files = [] if real in entered else files  # a link back to a parent would go on for ever
        entered.add(real)
        for name in files:
            if name[0] != "." and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                found.append(Path(place, name))
    for path in found:
        if not path.name.isprintable() and _is_undecodable(path):
            raise DataError(f"{str(path)!a}: the file name is not UTF-8; rename the file")
    return sorted(found, key=lambda path: path.as_posix())


def read_image(path: Path) -> Image:
    """Decode an image to upright RGB.

    EXIF orientation is applied. Transparent parts are laid on white, as a browser shows them.
    16-bit gray is divided by 257, so that 65,535 becomes 255. Only the first frame of an animation
    is read.

    Raises:
        DataError: If the file is missing, truncated, no image, or has float or 32-bit pixels.
    """
    try:
        with PILImage.open(path) as picture:
            return np.array(_to_rgb(_upright(picture)))  # a copy: torch wants writable memory
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: cannot be read as an image ({one_line(error)})") from error


def rgb_from_pil(picture: PILImage.Image) -> Image:
    """Turn an opened picture into an upright RGB image, as `read_image` does with a file.

    Raises:
        DataError: If the pixels cannot be decoded, or are float or 32-bit.
    """
    try:
        return np.array(_to_rgb(_upright(picture)))  # a copy: torch wants writable memory
    except PILLOW_ERRORS as error:
        raise DataError(f"the picture cannot be read ({one_line(error)})") from error


def find_unreadable(paths: Iterable[Path], *, thorough: bool = False) -> dict[Path, str]:
    """Find the images that cannot be read, and why.

    Args:
        paths: Image files.
        thorough: Decode every image. Otherwise only those whose header or last bytes look wrong,
            which finds foreign, empty and truncated files at a small part of the cost.

    Returns:
        Path -> reason, in the order given.
    """
    listed = list(paths)
    check = _problem_of_pixels if thorough else _problem_of_file
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        reasons = list(pool.map(check, listed, chunksize=1))
    return {path: why for path, why in zip(listed, reasons, strict=True) if why is not None}


def _problem_of_file(path: Path) -> str | None:
    """Judge an image by its header and end; decode it only when these look wrong."""
    try:
        with PILImage.open(path) as picture, path.open("rb") as stream:
            ending = _FILE_END.get(picture.format or "")
            if ending is not None:
                stream.seek(-len(ending), os.SEEK_END)
                if stream.read() == ending:
                    return None
    except PILLOW_ERRORS as error:
        return one_line(error)
    return _problem_of_pixels(path)


def _problem_of_pixels(path: Path) -> str | None:
    """Decode an image and return what went wrong, or None."""
    try:
        read_image(path)
    except DataError as error:
        return one_line(error.__cause__ or error)
    return None


def _upright(picture: PILImage.Image) -> PILImage.Image:
    """Apply the EXIF orientation; an image with unreadable EXIF stays as it is."""
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except PILLOW_ERRORS:
        return picture


def _to_rgb(picture: PILImage.Image) -> PILImage.Image:
    """Convert any mode that an image may have to RGB."""
    if picture.mode in SIXTEEN_BIT_MODES:
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65_535:
            raise ValueError("pixel values beyond 16 bits; save it as 8-bit or 16-bit")
        return PILImage.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("float pixel values; save it as 8-bit or 16-bit")
    if picture.has_transparency_data:
        paper = PILImage.new("RGBA", picture.size, _WHITE)
        return PILImage.alpha_composite(paper, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _is_undecodable(path: Path) -> bool:
    """Whether the operating system's name of the file is not UTF-8."""
    return any("\udc80" <= letter <= "\udcff" for letter in str(path))


def one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
