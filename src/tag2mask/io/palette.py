"""The PASCAL VOC palette: a color for each mask value."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt


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


def colorize(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Turn an (H, W) mask into an (H, W, 3) RGB image in palette colors."""
    return voc_palette()[mask]
