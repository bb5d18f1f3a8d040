"""Read the Semantic Boundaries Dataset (SBD): class masks for 11,355 images of VOC 2011.

```
SBD/dataset/train.txt, val.txt   image names, one per line
SBD/dataset/cls/ID.mat           a MATLAB structure GTcls whose field Segmentation is the mask
```
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from tag2mask.data.voc import VOC_CLASSES, listed_images
from tag2mask.errors import DataError, MissingExtraError
from tag2mask.io.images import one_line
from tag2mask.io.text_files import read_text
from tag2mask.types import Mask

SBD_URL = (
    "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
    "benchmark.tgz"
)
SBD_LISTS = ("train", "val")
MASK_FOLDER = "cls"
_INSIDE = (Path(), Path("dataset"), Path("benchmark_RELEASE", "dataset"))
_READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    NotImplementedError,
    AttributeError,
    struct.error,
    zlib.error,
)
"""Errors that scipy raises for a damaged or foreign file."""


def sbd_root(root: Path) -> Path:
    """Return the folder that contains `cls`: `root`, or `dataset` inside it.

    Raises:
        DataError: If there is none.
    """
    for inside in _INSIDE:
        folder = root.expanduser() / inside
        if (folder / MASK_FOLDER).is_dir():
            return folder
    raise DataError(
        f"{root}: not the Semantic Boundaries Dataset: there is no folder dataset/{MASK_FOLDER}; "
        f"unpack {SBD_URL}"
    )


def read_sbd_lists(folder: Path) -> dict[str, tuple[str, ...]]:
    """Read the lists `train` and `val` of SBD, which are not those of VOC.

    Args:
        folder: From `sbd_root`.

    Raises:
        DataError: If a list is missing or empty.
    """
    lists = {}
    for name in SBD_LISTS:
        path = folder / f"{name}.txt"
        text = read_text(path, DataError, advice=f"unpack {SBD_URL} again")
        names = listed_images(text.splitlines())
        if not names:
            raise DataError(f"{path}: the list is empty; unpack {SBD_URL} again")
        lists[name] = tuple(names)
    return lists


def sbd_mask_path(folder: Path, name: str) -> Path:
    """Return the file of an image's class mask."""
    return folder / MASK_FOLDER / f"{name}.mat"


def read_sbd_mask(path: Path) -> Mask:
    """Read the class mask of one image.

    Returns:
        (H, W) uint8: 0 is background, 1 to 20 are VOC's classes. SBD has no ignored pixels.

    Raises:
        MissingExtraError: If scipy is not installed.
        DataError: If the file is missing, damaged, or not a class mask of SBD.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingExtraError("voc") from error
    try:
        found = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"].item())
    except (*_READ_ERRORS, MatReadError) as error:
        raise DataError(
            f"{path}: cannot be read as a class mask of SBD ({one_line(error)})"
        ) from error
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.integer):
        raise DataError(
            f"{path}: GTcls.Segmentation must be a matrix of whole numbers, got "
            f"{found.dtype} with {found.ndim} axes"
        )
    if found.size and not 0 <= found.min() <= found.max() <= len(VOC_CLASSES):
        raise DataError(
            f"{path}: pixel values {found.min()} to {found.max()}; classes are 1 to "
            f"{len(VOC_CLASSES)}, background is 0"
        )
    mask: Mask = np.ascontiguousarray(found, dtype=np.uint8)
    return mask
