"""Heat maps: values in [0, 1] as colors over a gray image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tag2mask.functional.cam import upsample
from tag2mask.types import Image

HEAT_COLORS = ((18, 18, 48), (52, 58, 132), (38, 130, 142), (122, 196, 96), (250, 232, 92))
"""Colors of 0, 1/4, 1/2, 3/4 and 1: dark to light, so that they also read in gray."""
HEAT_OPACITY = 0.75


def colorize_heat(values: npt.NDArray[np.float32]) -> Image:
    """Color (H, W) values in [0, 1] from dark to light; returns (H, W, 3)."""
    stops = np.linspace(0, 1, len(HEAT_COLORS))
    channels = [np.interp(values, stops, [color[c] for color in HEAT_COLORS]) for c in range(3)]
    colors: Image = np.stack(channels, axis=-1).round().astype(np.uint8)
    return colors


def stretch(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Stretch values to [0, 1]; refined probabilities are nearly flat by design."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / max(high - low, 1e-6)


def overlay_heat(image: Image, values: npt.NDArray[np.float32]) -> Image:
    """Overlay (H, W) values in [0, 1] on a gray version of an (H, W, 3) image."""
    gray = image.mean(axis=2, keepdims=True)
    mixed = (1 - HEAT_OPACITY) * gray + HEAT_OPACITY * colorize_heat(values)
    picture: Image = mixed.round().astype(np.uint8)
    return picture


def overlay_map(image: Image, values: Tensor) -> Image:
    """Overlay an (h, w) map of any range on an image, stretched from its minimum to its maximum."""
    resized = upsample(values[None, None], image.shape[:2])[0, 0]
    return overlay_heat(image, stretch(resized.cpu().numpy()))
