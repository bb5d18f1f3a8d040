"""GeoTIFF: where the pixels of an image lie on the map, and images that only GDAL can read.

The georeference is read from the tags of the TIFF file and copied as it is, so no library and no
list of coordinate systems is needed. Rasters with other pixels than Pillow knows (many bands, three
bands of 16 bits, floats) need the extra `geo`.

Source:
    OGC GeoTIFF standard 1.1 (19-008r4), requirements 1 to 9 and annex B.
"""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tag2mask.io.depth import ValueRange, scale_to_8_bits
from tag2mask.io.heif import open_image
from tag2mask.io.limits import reject_excess
from tag2mask.types import Image

EXTRA = "geo"
_PNG = b"\x89PNG"
"""First bytes of a PNG file."""
TIFF_SUFFIXES = frozenset((".tif", ".tiff"))
SCALE, TIEPOINT, MATRIX, DIRECTORY, DOUBLES, TEXTS = 33550, 33922, 34264, 34735, 34736, 34737
"""Tags of a GeoTIFF."""
_ASCII, _SHORT, _DOUBLE = 2, 3, 12
TAG_TYPES = {
    SCALE: _DOUBLE,
    TIEPOINT: _DOUBLE,
    MATRIX: _DOUBLE,
    DIRECTORY: _SHORT,
    DOUBLES: _DOUBLE,
    TEXTS: _ASCII,
}
"""TIFF type of each tag."""
_RASTER_TYPE, _POINT = 1025, 2
_GEOGRAPHIC, _PROJECTED, _USER_DEFINED = 2048, 3072, 32767


class Georeference(NamedTuple):
    """Where an image lies on the map."""

    tags: dict[int, Any]
    """The tags of the file that say so."""
    matrix: npt.NDArray[np.float64]
    """(2, 3): map coordinates are `matrix @ (x, y, 1)` for x and y of a pixel's corner."""
    epsg: int | None
    """Code of the coordinate system; None if it is user-defined or missing."""

    def to_map(self, corners: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the map coordinates of (K, 2) x and y of pixel corners."""
        mapped: npt.NDArray[np.float64] = corners @ self.matrix[:, :2].T + self.matrix[:, 2]
        return mapped


def georeference(path: Path) -> Georeference | None:
    """Read the georeference of an image file; None if it has none.

    Raises:
        OSError: If the file cannot be opened.
    """
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return None
    with open_image(path) as opened:
        found = getattr(opened, "tag_v2", {})
        tags = {tag: found[tag] for tag in TAG_TYPES if tag in found}
    try:
        matrix, values = _matrix(tags), _short_keys(tags)
    except (TypeError, ValueError, OverflowError):  # the tags are damaged
        return None
    if matrix is None:
        return None
    if values.get(_RASTER_TYPE) == _POINT:  # coordinates are those of pixel centers
        matrix[:, 2] -= matrix[:, :2] @ (0.5, 0.5)
    code = values.get(_PROJECTED, values.get(_GEOGRAPHIC, _USER_DEFINED))
    return Georeference(tags, matrix, code if 1024 <= code < _USER_DEFINED else None)


@cache
def can_read_rasters() -> bool:
    """Return whether the extra is installed."""
    try:
        importlib.import_module("rasterio")
    except ImportError:
        return False
    return True


def read_raster(path: Path, value_range: ValueRange | None = None) -> Image:
    """Read the first three bands of a raster, or its only one as gray.

    Args:
        path: A TIFF file.
        value_range: Of pixels that are not 8 bits; None: the image's own.

    Returns:
        (H, W, 3) uint8.

    Raises:
        OSError: If it cannot be read.
        DecompressionBombError: If it has more pixels than the limit.
    """
    rasterio = importlib.import_module("rasterio")
    with path.open("rb") as stream:  # GDAL reads these two formats; others may fetch what they name
        driver = "PNG" if stream.read(len(_PNG)) == _PNG else "GTiff"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            opened = rasterio.open(path, driver=driver)
        with opened:
            reject_excess(opened.width, opened.height)
            bands = [1, 2, 3] if opened.count >= 3 else [1, 1, 1]
            values = np.moveaxis(opened.read(bands), 0, -1)
    except rasterio.errors.RasterioError as error:
        raise OSError(str(error)) from error
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    return scale_to_8_bits(values, value_range)


def _matrix(tags: dict[int, Any]) -> npt.NDArray[np.float64] | None:
    """Return the (2, 3) matrix from pixels to the map; None if the tags have none."""
    if MATRIX in tags:
        return np.array(tags[MATRIX], dtype=np.float64).reshape(4, 4)[[0, 1]][:, [0, 1, 3]]
    if SCALE not in tags or TIEPOINT not in tags:
        return None
    step_x, step_y = (float(value) for value in tags[SCALE][:2])
    column, row, _, x, y = (float(value) for value in tags[TIEPOINT][:5])
    return np.array([[step_x, 0, x - column * step_x], [0, -step_y, y + row * step_y]])


def _short_keys(tags: dict[int, Any]) -> dict[int, int]:
    """Return the keys of the directory whose value stands in the directory itself."""
    values = [int(value) for value in tags.get(DIRECTORY, ())]
    entries = (values[at : at + 4] for at in range(4, len(values) - 3, 4))
    return {key: value for key, location, _, value in entries if location == 0}
