"""Masks that the libraries of the formats read back; see `make test-formats`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PILImage
from tests.unit.formats.conftest import CLASSES, SCORES, drawn_masks

from tag2mask.formats.base import MaskCollection
from tag2mask.formats.collection import open_masks
from tag2mask.formats.exchange import export_masks
from tag2mask.inference.writer import MaskWriter
from tag2mask.types import Mask, Prediction


def scene_masks() -> dict[str, Mask]:
    """Hand-drawn masks, and larger ones: a ring, blobs of two classes that touch, specks."""
    rows, columns = np.mgrid[0:61, 0:83]
    distance = np.hypot(rows - 30, columns - 40)
    ring = ((distance < 25) & (distance > 9)).astype(np.uint8)
    ring[distance < 4] = 2  # an island
    blobs = np.where(columns < 45, 1, 2).astype(np.uint8)
    blobs[(rows + columns) % 60 < 13] = 0
    specks = (np.random.default_rng(0).random((61, 83)) < 0.05).astype(np.uint8)
    specks[20:40, 50:80] = 2
    return {**drawn_masks(), "big/ring": ring, "big/blobs": blobs, "specks": specks}


@pytest.fixture
def masks(tmp_path: Path) -> MaskCollection:
    writer = MaskWriter(tmp_path / "masks", CLASSES, "tags", {})
    for name, mask in scene_masks().items():
        path = tmp_path / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.zeros((*mask.shape, 3), dtype=np.uint8)
        PILImage.fromarray(image).save(path)
        writer.write(name, Prediction(mask, CLASSES, SCORES, "tags", image), path)
    return open_masks(tmp_path / "masks")


@pytest.fixture
def export(masks: MaskCollection, tmp_path: Path) -> Callable[[str, str], Path]:
    """Export the masks in a format to a path below the temporary folder."""

    def write(format_name: str, target: str) -> Path:
        export_masks(masks, format_name, tmp_path / target)
        return tmp_path / target

    return write


def differs_by_one_px_at_most(found: npt.NDArray[np.bool_], mask: npt.NDArray[np.bool_]) -> bool:
    """Return whether every wrong pixel touches the boundary of the true mask."""
    padded = np.pad(mask, 1, mode="edge")
    height, width = mask.shape
    near = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    boundary = np.any(near, axis=0) & ~np.all(near, axis=0)
    return not ((found != mask) & ~boundary).any()
