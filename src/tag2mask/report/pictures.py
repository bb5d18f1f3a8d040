"""Pictures inside the page: small files of a bounded size, as addresses that need no network."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as PILImage

from tag2mask.io.heif import open_image
from tag2mask.io.images import PILLOW_ERRORS
from tag2mask.types import Image

QUALITIES = (84, 72, 60, 45)
"""JPEG qualities to try until a picture fits."""
SMALLER = 0.75
"""Factor of both sides if no quality fits."""


class Picture(NamedTuple):
    """A picture file in memory."""

    name: str
    data: bytes
    kind: str = "png"
    """png or jpeg."""

    @property
    def data_uri(self) -> str:
        """The file as an address that needs no network."""
        return f"data:image/{self.kind};base64,{b64encode(self.data).decode('ascii')}"


def jpeg_picture(name: str, image: Image | PILImage.Image, most_bytes: int) -> Picture:
    """Encode an image as JPEG of at most `most_bytes`: first of lower quality, then smaller."""
    picture = image if isinstance(image, PILImage.Image) else PILImage.fromarray(image)

    def encode(resized: PILImage.Image) -> bytes:
        data = b""
        for quality in QUALITIES:
            stream = io.BytesIO()
            resized.save(stream, format="JPEG", quality=quality, optimize=True)
            data = stream.getvalue()
            if len(data) <= most_bytes:
                break
        return data

    return Picture(name, _fit(picture, encode, most_bytes), "jpeg")


def jpeg_file(path: Path, most_bytes: int) -> Picture | None:
    """Read a picture that training drew, as JPEG of at most `most_bytes`; None if it is damaged."""
    try:
        with open_image(path) as opened:
            return jpeg_picture(path.stem, opened.convert("RGB"), most_bytes)
    except PILLOW_ERRORS:
        return None


def layer_picture(name: str, layer: Image, most_bytes: int) -> Picture:
    """Encode an (H, W, 4) RGBA layer as PNG of at most `most_bytes`, smaller if need be."""
    picture = PILImage.fromarray(np.ascontiguousarray(layer), mode="RGBA")

    def encode(resized: PILImage.Image) -> bytes:
        stream = io.BytesIO()
        resized.save(stream, format="PNG", optimize=True)
        return stream.getvalue()

    return Picture(name, _fit(picture, encode, most_bytes))


def _fit(
    picture: PILImage.Image, encode: Callable[[PILImage.Image], bytes], most_bytes: int
) -> bytes:
    """Shrink a picture until its file fits; one pixel always does."""
    data = encode(picture)
    while len(data) > most_bytes and max(picture.size) > 1:
        size = (max(1, int(picture.width * SMALLER)), max(1, int(picture.height * SMALLER)))
        kept = PILImage.Resampling.NEAREST if picture.mode == "RGBA" else None
        picture = picture.resize(size, kept or PILImage.Resampling.BILINEAR)
        data = encode(picture)
    return data
