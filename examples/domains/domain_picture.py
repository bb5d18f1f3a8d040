"""Draw images, true masks and predicted masks of a domain into one small picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from domain_images import Scene
from PIL import Image as PILImage

from tag2mask.io.masks import read_mask
from tag2mask.io.palette import colorize

COLUMNS = 5
TILE_SIDE_PX = 160


def save_picture(scenes: Sequence[Scene], masks: Path, path: Path, classes: int) -> None:
    """Write a row of images, one of true masks and one of predicted masks.

    The scenes are drawn by a random number, not chosen by eye.
    """
    drawn = np.random.default_rng(1).permutation(len(scenes))[:COLUMNS]
    columns = []
    for index in sorted(drawn.tolist()):
        scene = scenes[index]
        predicted = read_mask(masks / f"{index:04d}.png", classes)
        pictures = (scene.image, colorize(scene.mask), colorize(predicted))
        columns.append(np.vstack([_resized(picture, len(scenes)) for picture in pictures]))
    complete = np.hstack(columns)
    if len(scenes) == 1:  # one large image: side by side
        complete = np.hstack(np.split(complete, 3))
    PILImage.fromarray(complete).quantize(96).save(path, optimize=True)


def _resized(pixels: np.ndarray, scenes: int) -> np.ndarray:
    """Resize one picture, with a white border."""
    height, width = pixels.shape[:2]
    side = TILE_SIDE_PX if scenes > 1 else 2 * TILE_SIDE_PX
    size = (side, max(1, round(side * height / width)))
    resized = PILImage.fromarray(pixels).resize(size, PILImage.Resampling.BOX)
    return np.pad(np.asarray(resized), ((2, 2), (2, 2), (0, 0)), constant_values=255)
