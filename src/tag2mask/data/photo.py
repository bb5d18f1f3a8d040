"""Photo and mask files: found, checked and read into arrays with Pillow, whatever their mode."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageOps

from tag2mask.errors import DataError
from tag2mask.types import BACKGROUND, IGNORE, Image, Mask

PHOTO_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
)
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    PILImage.DecompressionBombError,
)
"""What Pillow raises on a damaged file, by format."""
_SIXTEEN_BIT = frozenset(("I", "I;16", "I;16B", "I;16L", "I;16N"))
_INDEX_MODES = _SIXTEEN_BIT | {"1", "L", "P"}
_WHITE = (255, 255, 255, 255)
_FILE_END = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
"""Last bytes of a whole file; others may follow in files that are whole all the same."""


def list_photos(folder: Path) -> list[Path]:
    """Return every photo below `folder`, sorted by path; hidden files and folders are left out.

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
            if name[0] != "." and Path(name).suffix.lower() in PHOTO_SUFFIXES:
                found.append(Path(place, name))
    for path in found:
        if not path.name.isprintable() and _is_undecodable(path):
            raise DataError(f"{str(path)!a}: the file name is not UTF-8; rename the file")
    return sorted(found, key=lambda path: path.as_posix())


def read_photo(path: Path) -> Image:
    """Decode a photo to upright RGB.

    EXIF orientation is applied. Transparent parts are laid on white, as a browser shows them.
    16-bit grey is divided by 257, so that 65,535 becomes 255. Only the first frame of an animation
    is read.

    Raises:
        DataError: If the file is missing, truncated, no image, or has float or 32-bit pixels.
    """
    try:
        with PILImage.open(path) as picture:
            return np.array(_to_rgb(_upright(picture)))  # a copy: torch wants writable memory
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except _BROKEN as error:
        raise DataError(f"{path}: cannot be read as an image ({_one_line(error)})") from error


def photo_of(picture: PILImage.Image) -> Image:
    """Turn an opened picture into an upright RGB photo, as `read_photo` does with a file.

    Raises:
        DataError: If the pixels cannot be decoded, or are float or 32-bit.
    """
    try:
        return np.array(_to_rgb(_upright(picture)))  # a copy: torch wants writable memory
    except _BROKEN as error:
        raise DataError(f"the picture cannot be read ({_one_line(error)})") from error


def read_mask(path: Path, num_foreground: int, size: tuple[int, int] | None = None) -> Mask:
    """Read a mask of class indices from a palette or grey image.

    Args:
        path: The mask file.
        num_foreground: F; pixel values 0..F and 255 are allowed.
        size: (H, W) of the photo that the mask belongs to; None leaves the size unchecked.

    Raises:
        DataError: If the file is missing or broken, holds colours in place of indices, a value
            outside the classes, or has another size than its photo.
    """
    try:
        with PILImage.open(path) as picture:
            mode = picture.mode
            raw = np.asarray(picture) if mode in _INDEX_MODES else None
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except _BROKEN as error:
        raise DataError(f"{path}: cannot be read as a mask ({_one_line(error)})") from error
    if raw is None:
        raise DataError(
            f"{path}: is a {mode} colour image; a mask is a palette or grey PNG of class indices"
        )
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
            f"its photo {size[1]}x{size[0]} px"
        )
    return raw.astype(np.uint8)


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


def find_unreadable(paths: Iterable[Path], *, thorough: bool = False) -> dict[Path, str]:
    """Find the photos that cannot be read, and why.

    Args:
        paths: Photo files.
        thorough: Decode every photo. Otherwise only those whose header or last bytes look wrong,
            which finds foreign, empty and truncated files at a small part of the cost.

    Returns:
        Path -> reason, in the order given.
    """
    listed = list(paths)
    check = _fault_of_pixels if thorough else _fault_of_file
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        reasons = list(pool.map(check, listed, chunksize=1))
    return {path: why for path, why in zip(listed, reasons, strict=True) if why is not None}


def _fault_of_file(path: Path) -> str | None:
    """Judge a photo by its header and end; decode it only when these look wrong."""
    try:
        with PILImage.open(path) as picture, path.open("rb") as stream:
            ending = _FILE_END.get(picture.format or "")
            if ending is not None:
                stream.seek(-len(ending), os.SEEK_END)
                if stream.read() == ending:
                    return None
    except _BROKEN as error:
        return _one_line(error)
    return _fault_of_pixels(path)


def _fault_of_pixels(path: Path) -> str | None:
    """Decode a photo and return what went wrong, or None."""
    try:
        read_photo(path)
    except DataError as error:
        return _one_line(error.__cause__ or error)
    return None


def _upright(picture: PILImage.Image) -> PILImage.Image:
    """Apply the EXIF orientation; a photo with unreadable EXIF stays as it is."""
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except _BROKEN:
        return picture


def _to_rgb(picture: PILImage.Image) -> PILImage.Image:
    """Convert any mode that a photo may have to RGB."""
    if picture.mode in _SIXTEEN_BIT:
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


def _one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
