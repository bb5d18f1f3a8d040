"""Random changes of color in training: brightness, contrast, saturation, hue."""

from __future__ import annotations

import numpy as np
from PIL import Image as PILImage
from PIL import ImageEnhance

from tag2mask.config.schema import DataConfig
from tag2mask.types import Image


def jitter_colors(image: Image, config: DataConfig, rng: np.random.Generator) -> Image:
    """Change the colors of a share of images, the four changes in random order.

    Args:
        image: (H, W, 3) uint8 RGB, image pixels alone.
        config: The share, and how far each change goes.
        rng: Source of chance; nothing is drawn if the share is 0.

    Source:
        Specification 4.1 and 4.2, "color jitter": factors U(1 - a, 1 + a), a turn of the
        hue U(-a, a), each rounded to bytes as Pillow does.
    """
    if not config.jitter or rng.random() >= config.jitter:
        return image
    strength = rng.uniform(-1, 1, size=4)
    changes = (
        (_brightness, config.jitter_brightness),
        (_contrast, config.jitter_contrast),
        (_saturation, config.jitter_saturation),
        (_hue, config.jitter_hue),
    )
    picture = PILImage.fromarray(image)
    for which in rng.permutation(len(changes)):
        change, most = changes[which]
        if most:
            picture = change(picture, float(most * strength[which]))
    return np.asarray(picture)


def _brightness(picture: PILImage.Image, amount: float) -> PILImage.Image:
    """Towards black (-1), or away from it."""
    return ImageEnhance.Brightness(picture).enhance(1 + amount)


def _contrast(picture: PILImage.Image, amount: float) -> PILImage.Image:
    """Towards the mean gray of the picture (-1), or away from it."""
    return ImageEnhance.Contrast(picture).enhance(1 + amount)


def _saturation(picture: PILImage.Image, amount: float) -> PILImage.Image:
    """Towards each pixel's own gray (-1), or away from it."""
    return ImageEnhance.Color(picture).enhance(1 + amount)


def _hue(picture: PILImage.Image, turn: float) -> PILImage.Image:
    """Turn the hue by a share of the circle."""
    hue, *others = picture.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int64) + round(256 * turn)) % 256
    moved = PILImage.fromarray(turned.astype(np.uint8))
    return PILImage.merge("HSV", (moved, *others)).convert("RGB")
