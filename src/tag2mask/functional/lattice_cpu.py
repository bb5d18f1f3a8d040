"""The permutohedral lattice on the CPU, compiled by numba.

Points of d features are lifted onto a plane in D = d + 1 dimensions that simplices tile. A point
gives its values to the D corners of its simplex (splat), corners average with their neighbors
along D axes (blur), and the point reads the corners back (slice): a Gaussian filter whose cost does
not depend on its width.

Points are placed in float32 exactly as written, ties rounded to even, as the package pydensecrf2
does: whole gray levels divided by 5 fall on borders between simplices, and which side they fall on
decides which corners exist.

Corners have whole coordinates, which are packed into one 64-bit key, so that a step along an axis
is one addition.

Source:
    Adams, Baek, Davis: Fast high-dimensional filtering using the permutohedral lattice, 2010.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tag2mask.errors import DataError
from tag2mask.functional.compilation import compiled

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]
"""Unsigned, as signed ones are checked for counting from the end."""
Slots = npt.NDArray[np.int32]
SelectedClasses = npt.NDArray[np.int64]

LEAST_NORM = 1e-20
"""Added to K1 before its root, so that nothing is divided by 0."""
_KEY_LIMIT = 1 << 62
_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 / golden ratio, odd: multiplied by it, neighboring keys scatter over the table."""
_FIRST_BITS = 12


@dataclass(frozen=True, slots=True)
class CpuLattice:
    """The lattice of P points; built once, filters any number of channels.

    D is the number of features plus 1, V the number of corners.
    """

    index: Indices
    """(P, D) corners of the simplex of each point, in 0..V-1."""
    weight: Floats
    """(P, D) share of each corner; sums to 1 over D, or is scaled by K1^-1/2 (`normalize`)."""
    near: Indices
    """(D, V, 2) neighbors of each corner along each axis; V where there is none."""
    gain: float
    """What makes the kernel 1 at a point that is a corner."""

    @property
    def corners(self) -> int:
        """V, the number of corners."""
        return int(self.near.shape[1])

    def rows(self, channels: int) -> Floats:
        """Zeros (V + 1, channels) for values at corners; the last row stands for no neighbor."""
        return np.zeros((self.corners + 1, channels), dtype=np.float32)

    def blur(self, rows: Floats, spare: Floats) -> tuple[Floats, Floats]:
        """Average (V + 1, C) `rows` along every axis; both arrays are overwritten.

        Returns:
            The averaged rows and the other array.
        """
        for axis in self.near:
            _blur(rows, axis, spare)
            rows, spare = spare, rows
        return rows, spare

    def filter(self, values: Floats) -> Floats:
        """Compute K v of (P, C) values, the point itself included."""
        rows = self.rows(values.shape[1])
        _splat(values, self.index, self.weight, rows)
        rows, _ = self.blur(rows, np.zeros_like(rows))
        out = np.empty_like(values)
        _slice(rows, self.index, self.weight, np.float32(self.gain), out)
        return out

    def normalize(self) -> None:
        """Make the filter D^-1/2 K D^-1/2 with D = K1, by scaling the weights in place."""
        total = self.filter(np.ones((len(self.index), 1), dtype=np.float32))
        np.multiply(self.weight, 1 / np.sqrt(total + np.float32(LEAST_NORM)), out=self.weight)


def build_cpu_lattice(features: Floats, most_corners: int) -> CpuLattice:
    """Build the lattice of a Gaussian kernel of width 1.

    Args:
        features: (P, d) finite, already divided by the kernel's widths.
        most_corners: Largest number of corners that memory is for.

    Raises:
        DataError: If there are more corners, or the features span more kernel widths than keys
            can tell apart.
    """
    scale = axis_scale(features.shape[1])
    lowest, highest = _extent(features, scale)
    stride, offset = key_layout(lowest.tolist(), highest.tolist())
    index, weight, keys, table, shift = _fill(features, scale, stride, offset, most_corners)
    if not len(keys):
        raise DataError(
            f"the lattice of {len(features)} pixels needs more than the {most_corners} corners "
            "its memory limit allows; shrink the image, raise the limit or widen the kernel"
        )
    near = _neighbors(keys, table, shift, stride)
    return CpuLattice(index, weight, near, kernel_gain(features.shape[1]))


def axis_scale(num_features: int) -> Floats:
    """(d,) factor of each feature that makes splat, blur and slice a Gaussian of width 1.

    Source:
        Adams et al., section 3: the variance of the three steps is 2/3 (d + 1)^2.
    """
    axis = np.arange(1, num_features + 1)
    propagate_cam = float(np.float32(math.sqrt(2 / 3) * (num_features + 1)))
    scale: Floats = (1 / np.sqrt(axis * (axis + 1)) * propagate_cam).astype(np.float32)
    return scale


def kernel_gain(num_features: int) -> float:
    """Factor that undoes what a corner gives back to itself round all its axes."""
    return 1 / (1 + 2.0**-num_features)


def key_layout(lowest: list[float], highest: list[float]) -> tuple[SelectedClasses, int]:
    """Lay whole coordinates out in one key, with room for steps beyond the outermost points.

    Args:
        lowest: D least lifted coordinates; the last needs no place, as coordinates sum to 0.
        highest: D greatest.

    Returns:
        (D,) stride of each coordinate, 0 for the last, and the key of the origin.

    Raises:
        DataError: If the keys do not fit in 62 bits.
    """
    margin = 3 * len(lowest)
    strides, origin, size = [], 0, 1
    for low, high in zip(lowest[:-1], highest[:-1], strict=True):
        first = math.floor(low) - margin
        strides.append(size)
        origin -= first * size
        size *= math.ceil(high) + margin - first + 1
    if size > _KEY_LIMIT:
        raise DataError("the lattice is too fine: widen the kernel (sxy, srgb) or shrink the image")
    return np.array([*strides, 0], dtype=np.int64), origin


@compiled(nogil=True, exact=True)
def _lift(point: Floats, scale: Floats, lifted: Floats) -> None:
    """Fill (D,) `lifted`, which sums to 0, from (d,) features."""
    total = np.float32(0)
    for axis in range(len(point), 0, -1):
        value = point[axis - 1] * scale[axis - 1]
        lifted[axis] = total - np.float32(axis) * value
        total += value
    lifted[0] = total


@compiled(nogil=True, exact=True)
def _extent(features: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """(D,) least and greatest lifted coordinates of (P, d) features."""
    size = features.shape[1] + 1
    lifted = np.empty(size, dtype=np.float32)
    lowest = np.full(size, np.float32(np.finfo(np.float32).max))
    highest = -lowest
    for p in range(len(features)):
        _lift(features[p], scale, lifted)
        for axis in range(size):
            lowest[axis] = min(lowest[axis], lifted[axis])
            highest[axis] = max(highest[axis], lifted[axis])
    return lowest, highest


@compiled(nogil=True, exact=True)
def _find_simplex(
    lifted: Floats, corner: SelectedClasses, rank: SelectedClasses, order: SelectedClasses
) -> None:
    """Find the simplex around a lifted point.

    Args:
        lifted: (D,) the point; becomes its distance from `corner`.
        corner: (D,) becomes the simplex' corner whose coordinates are multiples of D.
        rank: (D,) working space.
        order: (D,) becomes the axes by falling distance.
    """
    size, surplus = len(lifted), np.int64(0)
    down = np.float32(1) / np.float32(size)
    for axis in range(size):
        nearest = np.int64(np.rint(lifted[axis] * down))
        corner[axis] = nearest * size
        lifted[axis] -= np.float32(nearest * size)
        surplus += nearest
    rank[:] = surplus
    for i in range(size - 1):
        for j in range(i + 1, size):
            behind = lifted[i] < lifted[j]
            rank[i] += behind
            rank[j] += not behind
    for axis in range(size):
        turn = 1 if rank[axis] < 0 else (-1 if rank[axis] >= size else 0)
        rank[axis] += turn * size
        corner[axis] += turn * size
        lifted[axis] -= np.float32(turn * size)
        order[rank[axis]] = axis


@compiled(nogil=True)
def _find_slot(table: Slots, keys: SelectedClasses, shift: int, key: int) -> np.int64:
    """Find where `key` stands in the open-addressed `table`, or the free slot for it."""
    slot = np.int64((np.uint64(key) * np.uint64(_GOLDEN)) >> np.uint64(shift))
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@compiled(nogil=True)
def _doubled(table: Slots, keys: SelectedClasses, shift: int) -> tuple[Slots, SelectedClasses, int]:
    """Table and keys of twice the size, the full `keys` entered again."""
    larger = np.full(2 * len(table), -1, dtype=np.int32)
    more = np.empty(2 * len(keys), dtype=np.int64)
    more[: len(keys)] = keys
    for corner in range(len(keys)):
        larger[_find_slot(larger, more, shift - 1, keys[corner])] = corner
    return larger, more, shift - 1


@compiled(nogil=True, exact=True)
def _fill(
    features: Floats, scale: Floats, stride: SelectedClasses, origin: int, most_corners: int
) -> tuple[Indices, Floats, SelectedClasses, Slots, int]:
    """Find every point's corners and number them in the order in which they appear.

    Returns:
        Index and weight (P, D), keys (V,), the table that finds them and its shift. No keys when
        there are more than `most_corners`.
    """
    num, size = len(features), len(stride)
    index = np.empty((num, size), dtype=np.uint32)
    weight = np.empty((num, size), dtype=np.float32)
    table, shift = np.full(1 << _FIRST_BITS, -1, dtype=np.int32), 64 - _FIRST_BITS
    keys = np.empty(1 << (_FIRST_BITS - 1), dtype=np.int64)  # half the table: probes stay short
    count, all_axes = 0, stride.sum()
    point = np.empty(size, dtype=np.float32)
    corner, rank, order = np.empty((3, size), dtype=np.int64)
    for p in range(num):
        _lift(features[p], scale, point)
        _find_simplex(point, corner, rank, order)
        key = origin
        for axis in range(size):
            key += corner[axis] * stride[axis]
        gap = point[order[0]] - point[order[size - 1]]
        weight[p, 0] = np.float32(1) - gap / np.float32(size)
        for k in range(size):
            if k:
                gap = point[order[size - 1 - k]] - point[order[size - k]]
                weight[p, k] = gap / np.float32(size)
                key += all_axes - size * stride[order[size - k]]
            slot = _find_slot(table, keys, shift, key)
            if table[slot] < 0:
                if count == most_corners:
                    return index, weight, keys[:0], table, shift
                if count == len(keys):
                    table, keys, shift = _doubled(table, keys, shift)
                    slot = _find_slot(table, keys, shift, key)
                table[slot], keys[count] = count, key
                count += 1
            index[p, k] = table[slot]
    return index, weight, keys[:count], table, shift


@compiled(nogil=True)
def _neighbors(keys: SelectedClasses, table: Slots, shift: int, stride: SelectedClasses) -> Indices:
    """(D, V, 2) neighbors of each corner: one up along an axis and one down; V for none."""
    near = np.full((len(stride), len(keys), 2), len(keys), dtype=np.uint32)
    for axis in range(len(stride)):
        step = stride.sum() - len(stride) * stride[axis]
        for corner in range(len(keys)):
            other = table[_find_slot(table, keys, shift, keys[corner] + step)]
            if other >= 0:
                near[axis, corner, 0] = other
                near[axis, other, 1] = corner
    return near


@compiled(nogil=True)
def _splat(values: Floats, index: Indices, weight: Floats, rows: Floats) -> None:
    """Add (P, C) values to their corners' `rows` (V + 1, C)."""
    for p in range(len(index)):
        for k in range(index.shape[1]):
            corner, share = index[p, k], weight[p, k]
            for channel in range(values.shape[1]):
                rows[corner, channel] += share * values[p, channel]


@compiled(nogil=True)
def _blur(rows: Floats, near: Indices, out: Floats) -> None:
    """Add to each corner half of its two neighbors (V, 2) along one axis."""
    half = np.float32(0.5)
    for corner in range(len(near)):
        up, down = near[corner, 0], near[corner, 1]
        for channel in range(rows.shape[1]):
            beside = rows[up, channel] + rows[down, channel]
            out[corner, channel] = rows[corner, channel] + half * beside


@compiled(nogil=True)
def _slice(rows: Floats, index: Indices, weight: Floats, gain: Any, out: Floats) -> None:
    """Read (P, C) values back from their corners."""
    out[:] = 0
    for p in range(len(index)):
        for k in range(index.shape[1]):
            corner, share = index[p, k], gain * weight[p, k]
            for channel in range(rows.shape[1]):
                out[p, channel] += share * rows[corner, channel]
