"""Draw images, true masks and predicted masks of a domain into one small picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from domain_images import Scene
from tag2mask.io.masks import read_mask
from tag2mask.io.palette import colorize

COLUMNS = 5
CELL_PX = 160


def save_picture(scenes: Sequence[Scene], masks: Path, path: Path, classes: int) -> None:
    """Write a row of images, one of true masks and one of predicted masks.

    The scenes are drawn by a random number, not chosen by eye.
    """
    drawn = np.random.default_rng(1).permutation(len(scenes))[:COLUMNS]
    columns = []
    for index in sorted(drawn.tolist()):
        scene = scenes[index]
        predicted = read_mask(masks / f"{index:04d}.png", classes)
        cells = (scene.image, colorize(scene.mask), colorize(predicted))
        columns.append(np.vstack([_cell(cell, len(scenes)) for cell in cells]))
    picture = np.hstack(columns)
    if len(scenes) == 1:  # one large image: side by side
        picture = np.hstack(np.split(picture, 3))
    PILImage.fromarray(picture).quantize(96).save(path, optimize=True)


def _cell(pixels: np.ndarray, scenes: int) -> np.ndarray:
    """Resize one picture to a cell, with a white border."""
    height, width = pixels.shape[:2]
    side = CELL_PX if scenes > 1 else 2 * CELL_PX
    size = (side, max(1, round(side * height / width)))
    resized = PILImage.fromarray(pixels).resize(size, PILImage.Resampling.BOX)
    return np.pad(np.asarray(resized), ((2, 2), (2, 2), (0, 0)), constant_values=255)
