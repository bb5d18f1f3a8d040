"""Limit the pixels of images, so that a small file cannot fill the memory (decompression bombs).

Pillow reads the size from the header and refuses more than `MAX_IMAGE_PIXELS` times two before it
decodes a pixel. The environment variable TAG2MASK_MAX_MEGAPIXELS changes this limit.
"""

from __future__ import annotations

import math
import os
import re
import warnings

from PIL import Image as PILImage

VARIABLE = "TAG2MASK_MAX_MEGAPIXELS"
_MEGA = 1_000_000


def set_limit() -> None:
    """Give Pillow the limit of the environment; without a number there, it keeps its own."""
    # Pillow warns from half the limit on, which means nothing to the reader of one image, and of
    # damaged tags without the file's name; where these matter, its error follows.
    warnings.filterwarnings("ignore", category=PILImage.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    megapixels = _wanted_megapixels()
    if megapixels is not None:
        PILImage.MAX_IMAGE_PIXELS = math.ceil(megapixels * _MEGA / 2)


def reject_excess(width: int, height: int) -> None:
    """Apply Pillow's limit to an image that another library reads.

    Raises:
        DecompressionBombError: If it has more pixels than the limit.
    """
    limit = PILImage.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit:
        raise PILImage.DecompressionBombError(f"{width * height} pixels")


def describe_excess(error: PILImage.DecompressionBombError) -> str:
    """Return how many pixels an image has, how many it may have, and what raises the limit."""
    text = os.environ.get(VARIABLE, "")
    if text and _wanted_megapixels() is None:
        return f"the environment variable {VARIABLE} is {text!r}; give a number of megapixels"
    pixels = int((re.findall(r"\d+", str(error)) or ["0"])[0])
    limit = 2 * (PILImage.MAX_IMAGE_PIXELS or 0)
    return (
        f"{_megapixels(pixels)} megapixels, more than the limit of {_megapixels(limit)}; if you "
        f"trust the file, set the environment variable {VARIABLE}={math.ceil(pixels / _MEGA)}"
    )


def _megapixels(pixels: int) -> str:
    """Return a number of pixels in millions, with a decimal if it is small."""
    return f"{pixels / _MEGA:,.{0 if pixels >= 10 * _MEGA else 1}f}"


def _wanted_megapixels() -> float | None:
    """Return the positive number in the environment; None if there is none."""
    try:
        megapixels = float(os.environ.get(VARIABLE, ""))
    except ValueError:
        return None
    return megapixels if 0 < megapixels < math.inf else None
