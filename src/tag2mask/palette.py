"""The PASCAL VOC palette and indexed mask files, read and written with Pillow."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.types import Image, Mask


@cache
def voc_palette() -> npt.NDArray[np.uint8]:
    """Return the (256, 3) VOC colours: bits of the index dealt to R, G, B, highest bit first.

    Source: methods specification 5.3 (index 15 is (192, 128, 128), 255 is (224, 224, 192)).
    """
    index = np.arange(256)
    colour = np.zeros((256, 3), dtype=np.uint8)
    for shift in range(8):
        for channel in range(3):
            bit = (index >> (3 * shift + channel)) & 1
            colour[:, channel] |= (bit << (7 - shift)).astype(np.uint8)
    colour.setflags(write=False)
    return colour


def colourise(mask: Mask) -> Image:
    """Paint an (H, W) index mask as an (H, W, 3) RGB image."""
    return voc_palette()[mask]


def save_mask(mask: Mask, path: Path) -> None:
    """Write an indexed PNG with the VOC palette, whole or not at all."""
    picture = PILImage.fromarray(mask)
    picture.putpalette(voc_palette().tobytes())  # turns the grey image into an indexed one
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    picture.save(temporary, format="PNG")
    temporary.replace(path)
