"""Find, check and read image files with Pillow, in any pixel mode."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, ImageOps, UnidentifiedImageError
from PIL import Image as PILImage

from tag2mask.errors import DataError, MissingExtraError
from tag2mask.io.depth import ValueRange, scale_to_8_bits
from tag2mask.io.geo import EXTRA, TIFF_SUFFIXES, can_read_rasters, read_raster
from tag2mask.io.heif import HEIF_SUFFIXES, open_image
from tag2mask.io.limits import describe_excess, set_limit
from tag2mask.types import Image

set_limit()
IMAGE_SUFFIXES = HEIF_SUFFIXES | frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".avif")
)
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    RuntimeError,
    EOFError,
    struct.error,
    PILImage.DecompressionBombError,
    UserWarning,  # where Python turns warnings into errors, as the next one
    PILImage.DecompressionBombWarning,
)
"""Errors that Pillow raises for a damaged file, depending on the format."""
SIXTEEN_BIT_MODES = frozenset(("I", "I;16", "I;16B", "I;16L", "I;16N"))
MAX_16_BITS = 65_535
_TURNED_ORIENTATIONS = frozenset((5, 6, 7, 8))
"""EXIF orientations that swap width and height."""
_BAND_PIXELS = 1 << 22
"""Larger images are converted in bands of this many pixels."""
_WHITE = (255, 255, 255, 255)
_FILE_END = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
"""Last bytes of a complete file; complete files may contain others after them."""


def list_images(folder: Path) -> list[Path]:
    """Return every image below `folder`, sorted by path, without hidden files and folders.

    Raises:
        DataError: If the folder is missing, or a file name is not UTF-8.
    """
    paths = [path for path in visible_files(folder) if is_image_name(path)]
    for path in paths:
        if not path.name.isprintable() and _is_undecodable(path):
            raise DataError(f"{str(path)!a}: the file name is not UTF-8; rename the file")
    return sorted(paths, key=lambda path: path.as_posix())


def is_image_name(path: Path) -> bool:
    """Return whether the suffix is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield every file below `folder` in any order, without hidden files and folders.

    Raises:
        DataError: If the folder is missing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    visited = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = Path(parent).resolve()
        folders[:] = [] if real in visited else [name for name in folders if name[0] != "."]
        files = [] if real in visited else files  # a link to a parent folder would never end
        visited.add(real)
        yield from (Path(parent, name) for name in files if name[0] != ".")


def read_image(path: Path, value_range: ValueRange | None = None) -> Image:
    """Decode an image to upright RGB.

    EXIF orientation is applied. Transparent pixels are blended with white, as in a browser. Only
    the first frame of an animation is read, and the first three bands of a raster.

    Args:
        path: The file.
        value_range: Values of 16-bit pixels that become 0 and 255; None: the image's own range, see
            `own_range`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: If the file is missing, truncated, not an image, or has float or 32-bit pixels.
    """
    try:
        with open_image(path) as opened:
            if _needs_raster(opened) and can_read_rasters():
                return read_raster(path, value_range)
            return _to_array(_upright(opened), value_range)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except PILLOW_ERRORS as error:
        if _is_other_tiff(path, error):
            return _read_other_tiff(path, value_range, error)
        raise DataError(f"{path}: cannot be read as an image ({one_line(error)})") from error


def image_size(path: Path) -> tuple[int, int]:
    """Return the (H, W) of an upright image (EXIF orientation applied) from its header.

    Raises:
        DataError: If the file is missing or not an image.
    """
    try:
        with open_image(path) as opened:
            width, height = opened.size
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED_ORIENTATIONS
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: cannot be read as an image ({one_line(error)})") from error
    return (width, height) if turned else (height, width)


def rgb_from_pil(image: PILImage.Image, value_range: ValueRange | None = None) -> Image:
    """Convert a Pillow image to upright RGB, as `read_image` does with a file.

    Raises:
        DataError: If the pixels cannot be decoded, or are float or 32-bit.
    """
    try:
        return _to_array(_upright(image.copy()), value_range)
    except PILLOW_ERRORS as error:
        raise DataError(f"the image cannot be read ({one_line(error)})") from error


def find_unreadable(paths: Iterable[Path], *, thorough: bool = False) -> dict[Path, str]:
    """Find the images that cannot be read, and why.

    Args:
        paths: Image files.
        thorough: Decode every image. Otherwise only images whose header or last bytes look wrong
            are decoded, which finds foreign, empty and truncated files much faster.

    Returns:
        Path -> reason, in the order of `paths`.
    """
    listed = list(paths)
    check = _pixel_problem if thorough else _file_problem
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        reasons = list(pool.map(check, listed, chunksize=1))
    return {
        path: reason for path, reason in zip(listed, reasons, strict=True) if reason is not None
    }


def _file_problem(path: Path) -> str | None:
    """Check the header and the end of an image; decode it only if these look wrong."""
    try:
        with open_image(path) as opened, path.open("rb") as stream:
            ending = _FILE_END.get(opened.format or "")
            if ending is not None:
                stream.seek(-len(ending), os.SEEK_END)
                if stream.read() == ending:
                    return None
    except PILLOW_ERRORS as error:
        if not _is_other_tiff(path, error):
            return one_line(error)
    return _pixel_problem(path)


def _pixel_problem(path: Path) -> str | None:
    """Decode an image and return the error, or None."""
    try:
        read_image(path)
    except DataError as error:
        return one_line(error.__cause__ or error)
    return None


def _upright(image: PILImage.Image) -> PILImage.Image:
    """Apply the EXIF orientation to an image, which may change; without readable EXIF it stays."""
    image.load()
    with suppress(*PILLOW_ERRORS):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _is_other_tiff(path: Path, error: Exception) -> bool:
    """Return whether Pillow does not know the pixels of a TIFF file."""
    is_unknown = isinstance(error, UnidentifiedImageError)
    return is_unknown and path.suffix.lower() in TIFF_SUFFIXES


def _needs_raster(image: PILImage.Image) -> bool:
    """Return whether Pillow would drop the lower bits of several bands, or not take floats."""
    raw = str(getattr(image, "tile", ""))
    return image.mode == "F" or (image.mode not in SIXTEEN_BIT_MODES and ";16" in raw)


def _read_other_tiff(path: Path, value_range: ValueRange | None, error: Exception) -> Image:
    """Read a TIFF file that Pillow cannot read.

    Raises:
        DataError: If it cannot be read, with what to install if that may help.
    """
    if can_read_rasters():
        try:
            return read_raster(path, value_range)
        except PILLOW_ERRORS as other:
            reason = one_line(other)
    else:
        reason = f"{one_line(error)}; for rasters of many bands, {MissingExtraError(EXTRA)}"
    raise DataError(f"{path}: cannot be read as an image ({reason})") from OSError(reason)


def _to_array(image: PILImage.Image, value_range: ValueRange | None) -> Image:
    """Convert an image of any mode to writable RGB, band by band: a copy of it takes memory."""
    width, height = image.size
    if image.mode in SIXTEEN_BIT_MODES:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > MAX_16_BITS:
            raise ValueError("pixel values need more than 16 bits; save it as 8-bit or 16-bit")
        return scale_to_8_bits(values, value_range)[..., None].repeat(3, axis=2)
    if width * height <= _BAND_PIXELS:
        return np.array(_to_rgb(image))
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(_to_rgb(image.crop((0, top, width, bottom))))
    return pixels


def _to_rgb(image: PILImage.Image) -> PILImage.Image:
    """Convert an image of at most 8 bits to RGB."""
    if image.mode == "F":
        raise ValueError("float pixel values; save it as 8-bit or 16-bit")
    if image.has_transparency_data:
        white = PILImage.new("RGBA", image.size, _WHITE)
        return PILImage.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _is_undecodable(path: Path) -> bool:
    """Return whether the file name, as the operating system stores it, is not UTF-8."""
    return any("\udc80" <= letter <= "\udcff" for letter in str(path))


def one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks, or its type if it has no message."""
    if isinstance(error, PILImage.DecompressionBombError):
        return describe_excess(error)
    return " ".join(str(error).split()) or type(error).__name__
