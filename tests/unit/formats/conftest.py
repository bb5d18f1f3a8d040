"""A folder of hand-drawn masks: nested names, an empty mask, a hole, several parts, ignore."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.formats.base import MaskCollection
from tag2mask.formats.collection import open_masks
from tag2mask.inference.writer import MaskWriter
from tag2mask.types import Mask, Prediction

CLASSES = ("cat", "two words")
SCORES = {"cat": 0.75, "two words": 0.5}


def drawn_masks() -> dict[str, Mask]:
    """Masks of a few pixels, by image name."""
    ring = np.zeros((7, 9), dtype=np.uint8)
    ring[1:6, 2:8] = 1
    ring[3, 4:6] = 0
    parts = np.zeros((5, 8), dtype=np.uint8)
    parts[0:2, 0:3] = 2
    parts[3:5, 5:8] = 2
    parts[2, 3] = 2  # touches the first part at a corner
    parts[4, 0] = 1
    square = np.zeros((6, 6), dtype=np.uint8)
    square[2:5, 1:4] = 1
    return {
        "lane1/ring": ring,
        "lane2/parts": parts,
        "square": square,
        "none": np.zeros((4, 5), dtype=np.uint8),
        "full": np.full((3, 4), 2, dtype=np.uint8),
    }


@pytest.fixture
def write_masks(tmp_path: Path) -> Callable[..., Path]:
    """Write images and masks as `label` does; return the folder of the masks."""

    def write(masks: dict[str, Mask] | None = None) -> Path:
        folder = tmp_path / "masks"
        writer = MaskWriter(folder, CLASSES, "tags", {"background": 0.4})
        for name, mask in (drawn_masks() if masks is None else masks).items():
            path = tmp_path / "images" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = np.zeros((*mask.shape, 3), dtype=np.uint8)
            PILImage.fromarray(image).save(path)
            writer.write(name, Prediction(mask, CLASSES, SCORES, "tags", image), path)
        return folder

    return write


@pytest.fixture
def masks(write_masks: Callable[..., Path]) -> MaskCollection:
    """The drawn masks, opened."""
    return open_masks(write_masks())
