"""Colors of mask values: the PASCAL VOC palette of mask files, and bright ones for overlays."""

from __future__ import annotations

import colorsys
from functools import cache

import numpy as np
import numpy.typing as npt

BRIGHT = (
    (255, 60, 60), (60, 220, 90), (255, 225, 25), (80, 160, 255), (255, 150, 40), (220, 90, 255),
    (70, 240, 240), (255, 100, 210), (190, 245, 40), (255, 190, 170), (0, 200, 160),
    (170, 140, 255), (255, 245, 170), (215, 140, 90), (150, 255, 190), (190, 190, 60),
    (255, 120, 130), (120, 200, 255), (230, 190, 255), (160, 220, 120),
)  # fmt: skip
"""Overlay colors of mask values 1 to 20; each is light enough to be visible on a dark image."""
GOLDEN_RATIO = 0.618034
"""Step between the hues of further classes; it keeps neighbors apart."""
BACKGROUND_COLOR, IGNORE_COLOR = (0, 0, 0), (224, 224, 224)


@cache
def voc_palette() -> npt.NDArray[np.uint8]:
    """Return the (256, 3) VOC colors; the bits of a value are dealt to R, G and B, highest first.

    Source:
        Specification 5.3 (index 15 is (192, 128, 128), 255 is (224, 224, 192)).
    """
    index = np.arange(256)
    color = np.zeros((256, 3), dtype=np.uint8)
    for shift in range(8):
        for channel in range(3):
            bit = (index >> (3 * shift + channel)) & 1
            color[:, channel] |= (bit << (7 - shift)).astype(np.uint8)
    color.setflags(write=False)
    return color


@cache
def overlay_palette() -> npt.NDArray[np.uint8]:
    """Return the (256, 3) colors that overlays show; classes from 21 on step around the hues."""
    colors = [BACKGROUND_COLOR, *BRIGHT]
    for value in range(len(colors), 255):
        lightness, saturation = (0.7, 0.9) if value % 2 else (0.8, 0.6)
        rgb = colorsys.hls_to_rgb(value * GOLDEN_RATIO % 1, lightness, saturation)
        colors.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    palette = np.array([*colors, IGNORE_COLOR], dtype=np.uint8)
    palette.setflags(write=False)
    return palette


def colorize(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Turn an (H, W) mask into an (H, W, 3) RGB image in overlay colors."""
    return overlay_palette()[mask]


def css_color(mask_value: int) -> str:
    """Return the overlay color of a mask value as CSS writes it."""
    return "rgb({},{},{})".format(*overlay_palette()[mask_value].tolist())
