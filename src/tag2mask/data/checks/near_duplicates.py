"""Find images with nearly equal pixels: resized, saved again, or frames of one recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

HASH_BITS = 64
MOST_BITS = 10
"""Bits of the hash in which near duplicates may differ."""
SMALLEST_CORRELATION = 0.9
"""Least correlation of the tiny gray versions of near duplicates; below it, two images share only
their rough layout."""
_SIDE_PX = 16
_FLATTEST = 2.0
"""Least standard deviation of gray values; flatter images have no layout to compare."""
_ROWS = 1024
"""Rows of the table of distances that are in memory at a time."""


class Fingerprint(NamedTuple):
    """A small summary of an image that survives resizing and saving."""

    bits: npt.NDArray[np.bool_]
    """(64,) difference hash."""
    gray: npt.NDArray[np.float32]
    """(256,) gray values with mean 0 and length 1; all 0 for a flat image."""


def fingerprint(image: PILImage.Image) -> Fingerprint:
    """Summarize an image by its difference hash and a tiny gray version.

    Source:
        The difference hash (dHash) is N. Krawetz, "Kind of like that", hackerfactor.com, 2013: 9x8
        gray values, one bit per pair of horizontal neighbors. The second check is our own.
    """
    gray = image.convert("L")
    tiny = np.asarray(gray.resize((9, 8), PILImage.Resampling.BOX), dtype=np.int16)
    bits = (tiny[:, 1:] > tiny[:, :-1]).reshape(HASH_BITS)
    small = np.asarray(gray.resize((_SIDE_PX, _SIDE_PX), PILImage.Resampling.BOX), dtype=np.float32)
    centered = small.reshape(-1) - small.mean()
    if centered.std() < _FLATTEST:
        return Fingerprint(bits, np.zeros_like(centered))
    return Fingerprint(bits, centered / np.linalg.norm(centered))


def near_duplicates(prints: Mapping[str, Fingerprint]) -> list[tuple[str, ...]]:
    """Return groups of images that are nearly equal, each in the order of `prints`.

    A group is connected: each image is near another one of it. Flat images are in no group.
    """
    names = [name for name, image in prints.items() if image.gray.any()]
    if not names:
        return []
    leader = list(range(len(names)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for first, second in _near_pairs([prints[name] for name in names]):
        low, high = sorted((find(first), find(second)))
        leader[high] = low
    groups: dict[int, list[str]] = {}
    for index, name in enumerate(names):
        groups.setdefault(find(index), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _near_pairs(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int]]:
    """Yield the positions of each pair of near images."""
    # With bits as -1 and 1, the product of two hashes is 64 minus twice their distance.
    signs = np.stack([image.bits for image in prints]).astype(np.float32) * 2 - 1
    gray = np.stack([image.gray for image in prints])
    for start in range(0, len(prints), _ROWS):
        rows = slice(start, start + _ROWS)
        products = signs[rows] @ signs[start:].T  # (rows, N - start)
        first, second = np.nonzero(products >= HASH_BITS - 2 * MOST_BITS)
        later = second > first
        first, second = first[later] + start, second[later] + start
        near = (gray[first] * gray[second]).sum(axis=1) >= SMALLEST_CORRELATION
        yield from zip(first[near].tolist(), second[near].tolist(), strict=True)
