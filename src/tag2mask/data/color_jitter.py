"""Color jitter in training: brightness, contrast, saturation and hue."""

from __future__ import annotations

import numpy as np
from PIL import Image as PILImage
from PIL import ImageEnhance

from tag2mask.config.schema import DataConfig
from tag2mask.types import Image


def jitter_colors(image: Image, config: DataConfig, rng: np.random.Generator) -> Image:
    """Change the colors of some images, with the four changes in random order.

    Args:
        image: (H, W, 3) uint8 RGB, without padding.
        config: Probability `jitter` and the strength of each change.
        rng: Random generator; nothing is drawn if the probability is 0.

    Source:
        Specification 4.1 and 4.2, "color jitter": factors U(1 - a, 1 + a) and a shift of the
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
    jittered = PILImage.fromarray(image)
    for index in rng.permutation(len(changes)):
        change, maximum = changes[index]
        if maximum:
            jittered = change(jittered, float(maximum * strength[index]))
    return np.asarray(jittered)


def _brightness(image: PILImage.Image, amount: float) -> PILImage.Image:
    """Blend the image toward black (amount -1), or away from it."""
    return ImageEnhance.Brightness(image).enhance(1 + amount)


def _contrast(image: PILImage.Image, amount: float) -> PILImage.Image:
    """Blend the image toward its mean gray (amount -1), or away from it."""
    return ImageEnhance.Contrast(image).enhance(1 + amount)


def _saturation(image: PILImage.Image, amount: float) -> PILImage.Image:
    """Blend each pixel toward its own gray (amount -1), or away from it."""
    return ImageEnhance.Color(image).enhance(1 + amount)


def _hue(image: PILImage.Image, shift: float) -> PILImage.Image:
    """Shift the hue by a fraction of the color circle."""
    hue, *others = image.convert("HSV").split()
    shifted = (np.asarray(hue).astype(np.int64) + round(256 * shift)) % 256
    new_hue = PILImage.fromarray(shifted.astype(np.uint8))
    return PILImage.merge("HSV", (new_hue, *others)).convert("RGB")
