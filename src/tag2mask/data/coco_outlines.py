"""Outlines of COCO annotations: packed, checked, and decoded to pixels by pycocotools.

pycocotools reads past its buffers or takes gigabytes when numbers are wrong, so every number is
checked before it is called.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Inside = npt.NDArray[np.bool_]
Size = tuple[int, int]
"""Height and width in pixels."""
_FEWEST_NUMBERS = 6
"""Numbers of a triangle; pycocotools reads polygons of four numbers as boxes."""
_REACH = 10
"""Coordinates may lie this many image sides outside the image."""
LONGEST = 2_000_000
"""Pixels along one polygon; pycocotools takes 80 bytes for each."""
_FIRST_LETTER = 48
_MOST_LETTERS = 6
"""Letters of the longest number in compressed run lengths; holds 2 ** 29 pixels."""
_NOTHING = "has no polygons and no run lengths"


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Outlines of annotations in file order, in arrays that worker processes can share."""

    points: npt.NDArray[np.float64]
    """x, y, x, y, ... of all polygons, one after the other."""
    starts: npt.NDArray[np.int64]
    """(P + 1,) where each polygon starts in `points`."""
    parts: npt.NDArray[np.int64]
    """(A + 1,) first polygon of each annotation."""
    runs: Mapping[int, bytes]
    """Position of an annotation -> its compressed run lengths."""

    @property
    def has_outline(self) -> npt.NDArray[np.bool_]:
        """(A,) whether an annotation has an outline."""
        found: npt.NDArray[np.bool_] = np.diff(self.parts) > 0
        found[list(self.runs)] = True
        return found

    def decode(self, position: int, size: Size) -> Inside | None:
        """Return the (H, W) pixels of one annotation; None if it covers nothing.

        Polygons with fewer than three corners cover nothing.

        Source:
            COCO's mask API, as `annToMask` calls it.
        """
        first, last = self.parts[position], self.parts[position + 1]
        pieces = [
            self.points[self.starts[part] : self.starts[part + 1]] for part in range(first, last)
        ]
        polygons = [piece for piece in pieces if len(piece) >= _FEWEST_NUMBERS]
        if polygons:
            encoded = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
        elif position in self.runs:
            encoded = {"size": list(size), "counts": self.runs[position]}
        else:
            return None
        inside: Inside = coco_mask.decode(encoded).view(np.bool_)
        return inside

    def extents(self) -> npt.NDArray[np.float64]:
        """(P, 4) smallest x and y, and largest x and y of each polygon."""
        if len(self.starts) == 1:
            return np.empty((0, 4))
        corners, first = self.points.reshape(-1, 2), self.starts[:-1] // 2
        smallest = np.minimum.reduceat(corners, first, axis=0)
        return np.concatenate([smallest, np.maximum.reduceat(corners, first, axis=0)], axis=1)

    def find_too_long(self) -> int | None:
        """Return the first polygon that is too long for pycocotools; None if there is none."""
        corners = np.diff(self.starts) // 2
        left, top, right, bottom = self.extents().T
        at_most = corners * np.maximum(right - left, bottom - top)
        for part in np.flatnonzero(at_most > LONGEST).tolist():
            polygon = self.points[self.starts[part] : self.starts[part + 1]].reshape(-1, 2)
            if np.abs(np.diff(polygon, axis=0)).max(axis=1).sum() > LONGEST:
                return int(part)
        return None


@dataclass(slots=True)
class OutlinePacker:
    """Collects outlines annotation by annotation; refuses malformed ones."""

    _points: array[float] = field(default_factory=lambda: array("d"))
    _starts: array[int] = field(default_factory=lambda: array("q", (0,)))
    _parts: array[int] = field(default_factory=lambda: array("q", (0,)))
    _runs: dict[int, bytes] = field(default_factory=dict)

    def add(self, shape: Any, size: Size, *, keep: bool) -> None:
        """Add the `segmentation` of the next annotation.

        Args:
            shape: Polygons or run lengths as JSON gives them, or nothing.
            size: Of the image.
            keep: Whether its pixels will be wanted; otherwise run lengths are only checked.

        Raises:
            ValueError: If it is not an outline of an image of this size, saying why.
        """
        if isinstance(shape, dict):
            encoded = encode_runs(shape, size)
            if keep:
                self._runs[len(self._parts) - 1] = encoded
        elif shape:
            if not isinstance(shape, list) or not all(isinstance(p, array) for p in shape):
                raise ValueError(_NOTHING)
            for polygon in shape:
                self._add_polygon(polygon, size)
        self._parts.append(len(self._starts) - 1)

    def packed(self) -> Outlines:
        """Return everything that was added."""
        return Outlines(
            points=np.frombuffer(self._points, dtype=np.float64),
            starts=np.frombuffer(self._starts, dtype=np.int64),
            parts=np.frombuffer(self._parts, dtype=np.int64),
            runs=self._runs,
        )

    def _add_polygon(self, polygon: array[float], size: Size) -> None:
        """Add a polygon whose coordinates lie near its image, or that lies wholly outside."""
        if len(polygon) % 2:
            raise ValueError(f"a polygon is x, y, x, y, ...; one has {len(polygon)} numbers")
        if not polygon or not math.isfinite(sum(polygon)):
            raise ValueError("a polygon has no numbers, or an infinite one")
        reach = _REACH * max(size)
        furthest = max(min(polygon), max(polygon), key=abs)
        if abs(furthest) > reach:
            if not _is_outside(polygon, size):
                raise ValueError(f"coordinate {furthest:g} is far outside its image")
            # Still outside, as the image lies within reach; pycocotools can handle it.
            polygon = array("d", (min(max(number, -reach), reach) for number in polygon))
        self._points.extend(polygon)
        self._starts.append(len(self._points))


def _is_outside(polygon: Sequence[float], size: Size) -> bool:
    """Return whether a polygon lies on one side of its image, so that it covers no pixel."""
    height, width = size
    return any(
        max(numbers) < 0 or min(numbers) > side
        for numbers, side in ((polygon[::2], width), (polygon[1::2], height))
    )


def pack_polygons(shape: Any) -> Any:
    """Turn lists of coordinates into arrays, a quarter of the memory; leave other values alone."""
    if not isinstance(shape, list):
        return shape
    try:
        return [array("d", polygon) if isinstance(polygon, list) else polygon for polygon in shape]
    except (TypeError, OverflowError):  # refused later, where the annotation can be named
        return shape


def encode_runs(shape: Mapping[str, Any], size: Size) -> bytes:
    """Check run lengths and return them compressed.

    Args:
        shape: `counts`, as numbers or as COCO's compressed string, and `size`.
        size: Of the image.

    Raises:
        ValueError: If they are malformed, of another size, or do not cover the image exactly.
    """
    counts, stated = shape.get("counts"), shape.get("size")
    if not isinstance(counts, str | list) or not _is_size(stated):
        raise ValueError(_NOTHING)
    height, width = size
    if stated != [height, width]:
        raise ValueError(
            f"its run lengths are of {stated[1]}x{stated[0]} px, its image has {width}x{height} px"
        )
    numbers = _decompressed(counts) if isinstance(counts, str) else counts
    if not all(type(number) is int and 0 <= number <= height * width for number in numbers):
        raise ValueError(f"run lengths must be whole numbers from 0 to {height * width:,}")
    total = sum(numbers)
    if total != height * width:
        raise ValueError(f"run lengths sum to {total:,}, its size {width}x{height} px does not")
    if isinstance(counts, str):
        return counts.encode("ascii")
    encoded = coco_mask.frPyObjects({"counts": counts, "size": stated}, height, width)
    return bytes(encoded["counts"])


def _is_size(stated: Any) -> TypeGuard[list[int]]:
    """Whether a value is [height, width]."""
    return (
        isinstance(stated, list) and len(stated) == 2 and all(type(side) is int for side in stated)
    )


def _decompressed(text: str) -> Sequence[int]:
    """Return the numbers of a compressed string, to check them; pycocotools trusts its strings.

    Each letter carries five bits, the lowest first, and a sixth bit that says that the number
    continues. From the fourth number on, the difference to the number before the last is stored.
    """
    letters = np.array([ord(letter) for letter in text], dtype=np.int64) - _FIRST_LETTER
    strange = np.flatnonzero((letters < 0) | (letters > 63))
    if strange.size:
        raise ValueError(f"{text[strange[0]]!r} does not occur in compressed run lengths")
    ends = np.flatnonzero(letters < 32)
    if not ends.size or ends[-1] != len(letters) - 1:
        raise ValueError("the compressed run lengths end within a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    used = ends - starts + 1
    if used.max() > _MOST_LETTERS:
        raise ValueError("the compressed run lengths hold a number that is too large")
    digit = np.arange(len(letters)) - np.repeat(starts, used)
    numbers = np.add.reduceat((letters & 31) << 5 * digit, starts)
    numbers -= np.where(letters[ends] & 16, 1 << 5 * used, 0)
    for first in (1, 2):
        numbers[first::2] = numbers[first::2].cumsum()
    found: list[int] = numbers.tolist()
    return found
