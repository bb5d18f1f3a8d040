"""Regions as COCO writes them, polygons and run lengths, turned into pixels as its own tools do.

The rule for polygons: a pixel belongs to a polygon if its center is inside, by the even-odd rule,
once corners and edges are rounded to a grid of fifths of a pixel. So masks equal those that the
published results were scored with, pixel by pixel.

Source:
    COCO's mask API, whose rounding is restated here from its behaviour; Specification 5.3.
    Departs: two corners cover nothing, where the API takes four numbers for a box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tag2mask.types import Mask

Counts = npt.NDArray[np.int64]
_GRID = 5
"""Steps of a pixel's side to which an outline is rounded."""
_CENTER = _GRID // 2
"""A pixel's center lies between this step and the next."""


def paint_polygon(mask: Mask, polygon: Sequence[float], value: int) -> None:
    """Write `value` into the pixels of a polygon; parts outside the picture are left out.

    Args:
        mask: (H, W), changed in place.
        polygon: x, y, x, y, ... in pixels from the upper left corner; closed by itself.
        value: What to write.
    """
    if len(polygon) < 6:
        return
    height, width = mask.shape
    scaled = np.asarray(polygon, dtype=np.float64).reshape(-1, 2) * _GRID + 0.5
    columns, rows = _crossings(scaled.astype(np.int64), width)
    if columns.size == 0:
        return
    rows = (-((_CENTER - rows) // _GRID)).clip(0, height)  # first row whose center is not above
    left, top = int(columns.min()), int(rows.min())
    shape = (int(columns.max()) - left + 1, int(rows.max()) - top + 1)
    flat = (columns - left) * shape[1] + rows - top
    crossed = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    inside = (crossed.cumsum(axis=1)[:, :-1] % 2).astype(bool).T  # an odd number lies above
    mask[top : top + shape[1] - 1, left : left + shape[0]][inside] = value


def paint_runs(mask: Mask, counts: Counts, value: int) -> None:
    """Write `value` into the pixels of run lengths.

    Args:
        mask: (H, W), changed in place.
        counts: Pixels outside and inside by turns, outside first, down the columns; sum H * W.
        value: What to write.
    """
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    mask[inside.reshape(mask.shape[::-1]).T] = value


def run_lengths(counts: str | Sequence[int]) -> Counts:
    """Return run lengths, written as numbers or in COCO's compressed string.

    In the string each letter carries five bits, the lowest first, and a sixth one that says that
    the number goes on; from the fourth number on, the difference to the last but one is written.

    Raises:
        ValueError: If a number is missing, negative or no whole number.
    """
    plain = _decompressed(counts) if isinstance(counts, str) else list(counts)
    if any(not isinstance(number, int) or number < 0 for number in plain):
        raise ValueError("run lengths are whole numbers from 0 on")
    return np.array(plain, dtype=np.int64)


def _decompressed(text: str) -> list[int]:
    """Numbers of a compressed string."""
    numbers: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"'{letter}' does not occur in compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # the sign
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths end within a number")
    return numbers


def _crossings(corners: npt.NDArray[np.int64], width: int) -> tuple[Counts, Counts]:
    """Where an outline crosses the center lines of pixel columns.

    Args:
        corners: (K, 2) x, y in steps of the grid.
        width: Of the picture in pixels; lines outside are left out.

    Returns:
        Columns, and for each the upper one of the two grid rows that the outline has beside it.
    """
    ends = np.roll(corners, -1, axis=0)
    span = np.abs(ends - corners)
    flat = span[:, 0] >= span[:, 1]
    parts = [
        _flat_crossings(*_in_order(corners[flat], ends[flat], 0), width),
        _steep_crossings(*_in_order(corners[~flat], ends[~flat], 1)),
    ]
    columns, rows = (np.concatenate(both) for both in zip(*parts, strict=True))
    seen = (columns >= 0) & (columns < width)
    return columns[seen], rows[seen]


def _in_order(first: Counts, last: Counts, axis: int) -> tuple[Counts, Counts]:
    """Turn edges so that they go right (axis 0) or down (axis 1)."""
    swap = (first[:, axis] > last[:, axis])[:, None]
    return np.where(swap, last, first), np.where(swap, first, last)


def _flat_crossings(first: Counts, last: Counts, width: int) -> tuple[Counts, Counts]:
    """Crossings of edges (E, 2) that go right by at least as much as up or down."""
    (x, y), (end_x, end_y) = first.T, last.T
    slope = (end_y - y) / np.maximum(end_x - x, 1)
    start = (-((_CENTER - x) // _GRID)).clip(min=0)
    number = (((end_x - _CENTER - 1) // _GRID).clip(max=width - 1) - start + 1).clip(min=0)
    edge, place = _counted(number)
    columns = start[edge] + place
    along = columns * _GRID + _CENTER - x[edge]
    before = (y[edge] + slope[edge] * along + 0.5).astype(np.int64)
    after = (y[edge] + slope[edge] * (along + 1) + 0.5).astype(np.int64)
    return columns, np.minimum(before, after)


def _steep_crossings(first: Counts, last: Counts) -> tuple[Counts, Counts]:
    """Crossings of edges (E, 2) that go down by more than sideways."""
    (x, y), (end_x, end_y) = first.T, last.T
    slope = (end_x - x) / np.maximum(end_y - y, 1)
    edge, along = _counted(end_y - y)
    here = (x[edge] + slope[edge] * along + 0.5).astype(np.int64)
    below = (x[edge] + slope[edge] * (along + 1) + 0.5).astype(np.int64)
    lower = np.minimum(here, below)
    crossing = (here != below) & (lower % _GRID == _CENTER)
    return lower[crossing] // _GRID, (y[edge] + along)[crossing]


def _counted(number: Counts) -> tuple[Counts, Counts]:
    """Count each of E things up to its number: (which thing, its count from 0 on)."""
    which = np.repeat(np.arange(len(number)), number)
    return which, np.arange(len(which)) - np.repeat(number.cumsum() - number, number)
