"""The usual mask file, decoded without detours: 8-bit indices, unfiltered rows, not interlaced.

Pillow takes twice the time for it, most of that to find out what else a picture could be and to
copy its pixels. Whatever is not of that kind, broken files included, is left to Pillow.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from tag2mask.types import Mask

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEX_COLORS = (0, 3)
"""Color types of PNG whose samples are indices: gray and palette."""
_MOST_PIXELS = 1 << 28
"""Larger headers are not believed here."""


def read_indexed_png(path: Path) -> Mask | None:
    """Read an (H, W) mask, values unchecked; None if the file is not plainly of the usual kind.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    content = path.read_bytes()
    if content[:8] != SIGNATURE or content[12:16] != b"IHDR":
        return None
    try:
        size = _plain_size(content)
        return None if size is None else _rows(_data(content), *size)
    except (zlib.error, struct.error):
        return None


def _plain_size(content: bytes) -> tuple[int, int] | None:
    """(H, W) from the header of a picture with 8-bit indices that is not interlaced."""
    width, height, depth, color, _, _, interlace = struct.unpack_from(">IIBBBBB", content, 16)
    plain = depth == 8 and color in _INDEX_COLORS and not interlace
    return (height, width) if plain and 0 < height * width < _MOST_PIXELS else None


def _data(content: bytes) -> bytes:
    """The compressed rows: all IDAT chunks joined."""
    at, parts = len(SIGNATURE), []
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IDAT":
            parts.append(content[at + 8 : at + 8 + length])
        elif kind == b"IEND":
            break
        at += 12 + length  # length, kind and checksum take four bytes each
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _rows(data: bytes, height: int, width: int) -> Mask | None:
    """Inflate rows of (filter, pixels...); None if any is filtered, or there are too few or many.

    The checksum at the end of the data has been compared when the decompressor is at its end.
    """
    whole = height * (width + 1)
    inflater = zlib.decompressobj()
    raw = inflater.decompress(data, whole)
    if len(raw) != whole or inflater.decompress(inflater.unconsumed_tail, 1) or not inflater.eof:
        return None
    rows = np.frombuffer(raw, dtype=np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:].copy()
