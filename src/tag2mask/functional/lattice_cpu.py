"""The permutohedral lattice on the CPU, compiled by numba.

Points with d features are lifted onto a hyperplane in D = d + 1 dimensions, which is tiled by
simplices. A point adds its values to the D corners of its simplex (splat), corners average with
their neighbors along D axes (blur), and the point interpolates its corners (slice). The result is
a Gaussian filter whose cost does not depend on its width.

Points are lifted in float32 with the operations in the written order and ties rounded to even, as
in the package pydensecrf2: integer gray levels divided by 5 lie on borders between simplices, and
rounding decides which corners exist.

The integer coordinates of a corner are packed into one 64-bit key, so that a step along an axis is
one addition.

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
"""Unsigned, because numba checks signed indices for negative values."""
Slots = npt.NDArray[np.int32]
Integers = npt.NDArray[np.int64]

LEAST_NORM = 1e-20
"""Added to K1 before its square root, which avoids division by 0."""
_KEY_LIMIT = 1 << 62
_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 / golden ratio, odd: this multiplier scatters neighboring keys over the table."""
_FIRST_BITS = 12


@dataclass(frozen=True, slots=True)
class CpuLattice:
    """The lattice of P points, which filters any number of channels.

    D is the number of features plus 1, V the number of corners.
    """

    index: Indices
    """(P, D) corners of each point's simplex, in 0..V-1."""
    weight: Floats
    """(P, D) weight of each corner; sums to 1 over D until `normalize` scales it by K1^-1/2."""
    near: Indices
    """(D, V, 2) neighbors of each corner along each axis; V if there is none."""
    gain: float
    """Factor that makes the kernel 1 at a point that is a corner."""

    @property
    def corners(self) -> int:
        """V, the number of corners."""
        return int(self.near.shape[1])

    def rows(self, channels: int) -> Floats:
        """Return (V + 1, channels) zeros for values at corners; the last row is for no neighbor."""
        return np.zeros((self.corners + 1, channels), dtype=np.float32)

    def blur(self, rows: Floats, buffer: Floats) -> tuple[Floats, Floats]:
        """Average (V + 1, C) `rows` along every axis; both arrays are overwritten.

        Returns:
            The averaged rows and the other array.
        """
        for axis in self.near:
            _blur(rows, axis, buffer)
            rows, buffer = buffer, rows
        return rows, buffer

    def filter(self, values: Floats) -> Floats:
        """Compute K v of (P, C) values; the sum includes the point itself."""
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


def build_cpu_lattice(features: Floats, max_corners: int) -> CpuLattice:
    """Build the lattice of a Gaussian kernel of width 1.

    Args:
        features: (P, d) finite, already divided by the kernel's widths.
        max_corners: Largest number of corners that fit in memory.

    Raises:
        DataError: If there are more corners, or the features span more kernel widths than 64-bit
            keys can represent.
    """
    scale = axis_scale(features.shape[1])
    lowest, highest = _extent(features, scale)
    stride, offset = key_layout(lowest.tolist(), highest.tolist())
    index, weight, keys, table, shift = _fill(features, scale, stride, offset, max_corners)
    if not len(keys):
        raise DataError(
            f"the lattice of {len(features)} pixels needs more than the {max_corners} corners "
            "its memory limit allows; shrink the image, raise the limit or widen the kernel"
        )
    near = _neighbors(keys, table, shift, stride)
    return CpuLattice(index, weight, near, kernel_gain(features.shape[1]))


def axis_scale(num_features: int) -> Floats:
    """Compute the (d,) factors of the features that make the filter a Gaussian of width 1.

    Source:
        Adams et al., section 3: the variance of the three steps is 2/3 (d + 1)^2.
    """
    axis = np.arange(1, num_features + 1)
    deviation = float(np.float32(math.sqrt(2 / 3) * (num_features + 1)))
    scale: Floats = (1 / np.sqrt(axis * (axis + 1)) * deviation).astype(np.float32)
    return scale


def kernel_gain(num_features: int) -> float:
    """Compute the factor that cancels the blur's contributions of a corner to itself."""
    return 1 / (1 + 2.0**-num_features)


def key_layout(lowest: list[float], highest: list[float]) -> tuple[Integers, int]:
    """Pack integer coordinates into one key, with room for steps beyond the outermost points.

    Args:
        lowest: D smallest lifted coordinates. Coordinates sum to 0, so keys omit the last.
        highest: D largest lifted coordinates.

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
    """Compute the (D,) smallest and largest lifted coordinates of (P, d) features."""
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
def _find_simplex(lifted: Floats, corner: Integers, rank: Integers, order: Integers) -> None:
    """Find the simplex around a lifted point.

    Args:
        lifted: (D,) point; overwritten with its distance from `corner`.
        corner: (D,) output: the corner of the simplex whose coordinates are multiples of D.
        rank: (D,) temporary.
        order: (D,) output: the axes by descending distance.
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
def _find_slot(table: Slots, keys: Integers, shift: int, key: int) -> np.int64:
    """Find the slot of `key` in the open-addressed `table`, or the free slot for it."""
    slot = np.int64((np.uint64(key) * np.uint64(_GOLDEN)) >> np.uint64(shift))
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@compiled(nogil=True)
def _doubled(table: Slots, keys: Integers, shift: int) -> tuple[Slots, Integers, int]:
    """Double the size of a full table and its keys."""
    larger_table = np.full(2 * len(table), -1, dtype=np.int32)
    larger_keys = np.empty(2 * len(keys), dtype=np.int64)
    larger_keys[: len(keys)] = keys
    for corner in range(len(keys)):
        larger_table[_find_slot(larger_table, larger_keys, shift - 1, keys[corner])] = corner
    return larger_table, larger_keys, shift - 1


@compiled(nogil=True, exact=True)
def _fill(
    features: Floats, scale: Floats, stride: Integers, origin: int, max_corners: int
) -> tuple[Indices, Floats, Integers, Slots, int]:
    """Find every point's corners and number them in order of appearance.

    Returns:
        Index and weight (P, D), keys (V,), the table of keys and its shift. The keys are empty if
        there are more than `max_corners`.
    """
    num, size = len(features), len(stride)
    index = np.empty((num, size), dtype=np.uint32)
    weight = np.empty((num, size), dtype=np.float32)
    table, shift = np.full(1 << _FIRST_BITS, -1, dtype=np.int32), 64 - _FIRST_BITS
    keys = np.empty(1 << (_FIRST_BITS - 1), dtype=np.int64)  # half the table keeps probes short
    count, all_axes = 0, stride.sum()
    point = np.empty(size, dtype=np.float32)
    corner, rank, order = np.empty((3, size), dtype=np.int64)
    for p in range(num):
        _lift(features[p], scale, point)
        _find_simplex(point, corner, rank, order)
        key = origin
        for axis in range(size):
            key += corner[axis] * stride[axis]
        difference = point[order[0]] - point[order[size - 1]]
        weight[p, 0] = np.float32(1) - difference / np.float32(size)
        for k in range(size):
            if k:
                difference = point[order[size - 1 - k]] - point[order[size - k]]
                weight[p, k] = difference / np.float32(size)
                key += all_axes - size * stride[order[size - k]]
            slot = _find_slot(table, keys, shift, key)
            if table[slot] < 0:
                if count == max_corners:
                    return index, weight, keys[:0], table, shift
                if count == len(keys):
                    table, keys, shift = _doubled(table, keys, shift)
                    slot = _find_slot(table, keys, shift, key)
                table[slot], keys[count] = count, key
                count += 1
            index[p, k] = table[slot]
    return index, weight, keys[:count], table, shift


@compiled(nogil=True)
def _neighbors(keys: Integers, table: Slots, shift: int, stride: Integers) -> Indices:
    """Find the (D, V, 2) neighbors of each corner, one step up and down each axis; V if none."""
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
            corner, fraction = index[p, k], weight[p, k]
            for channel in range(values.shape[1]):
                rows[corner, channel] += fraction * values[p, channel]


@compiled(nogil=True)
def _blur(rows: Floats, near: Indices, out: Floats) -> None:
    """Add half of the two neighbors (V, 2) along one axis to each corner."""
    half = np.float32(0.5)
    for corner in range(len(near)):
        up, down = near[corner, 0], near[corner, 1]
        for channel in range(rows.shape[1]):
            neighbors = rows[up, channel] + rows[down, channel]
            out[corner, channel] = rows[corner, channel] + half * neighbors


@compiled(nogil=True)
def _slice(rows: Floats, index: Indices, weight: Floats, gain: Any, out: Floats) -> None:
    """Interpolate (P, C) values from their corners."""
    out[:] = 0
    for p in range(len(index)):
        for k in range(index.shape[1]):
            corner, fraction = index[p, k], gain * weight[p, k]
            for channel in range(rows.shape[1]):
                out[p, channel] += fraction * rows[corner, channel]
