"""Trace the boundaries of masks along the edges of pixels, and draw polygons again.

Corners are pixel corners: pixel (0, 0) is the square from (0, 0) to (1, 1). So a polygon covers
exactly the pixels that it was traced from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Ring = npt.NDArray[np.int64]
"""(K, 2) x and y of the corners of a closed boundary, without the repeated first one."""
Pixels = npt.NDArray[np.bool_]
"""(H, W) pixels of one class."""
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Right, down, left, up as x and y; `direction + 1` turns right."""


class Part(NamedTuple):
    """A connected part of a mask; pixels that touch only at a corner are not connected."""

    outline: Ring
    """Clockwise on the screen; simple: it meets no corner twice."""
    holes: tuple[Ring, ...]
    """Counterclockwise; a hole may touch the outline or another hole at a corner."""


def trace_parts(inside: Pixels) -> list[Part]:
    """Trace the boundaries of all parts of a mask, from top to bottom.

    Args:
        inside: (H, W).

    Returns:
        Parts whose outlines, less their holes, cover exactly the pixels of the mask.
    """
    rings = [ring for loop in _trace_loops(inside) for ring in _split_at_repeated_corners(loop)]
    owners = _find_owners(rings, inside.shape)
    return [
        Part(ring, tuple(rings[hole] for hole in owners[index]))
        for index, ring in enumerate(rings)
        if index in owners
    ]


def may_be_simple(inside: Pixels) -> bool:
    """Return whether a mask may be one part without holes; False is certain, and much faster.

    One part without holes has an Euler number (parts less holes) of 1. A mask with the number 1 can
    have holes and as many more parts; `trace_parts` knows.

    Source:
        Gray: Local properties of binary images in two dimensions, 1971: counts of 2 x 2 squares.
    """
    padded = np.pad(inside, 1).astype(np.uint8)
    corners = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    square = corners[0] + 2 * corners[1] + 4 * corners[2] + 8 * corners[3]
    counts = np.bincount(square.ravel(), minlength=16)
    ones, threes = counts[[1, 2, 4, 8]].sum(), counts[[7, 11, 13, 14]].sum()
    diagonals = counts[[6, 9]].sum()
    return bool(ones - threes + 2 * diagonals == 4)


def signed_area(ring: Ring) -> float:
    """Return the area inside a ring in pixels; negative for a counterclockwise ring, a hole."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def merge_holes(part: Part) -> Ring:
    """Return one closed boundary for a part with holes, for formats without holes.

    Each hole is joined to the boundary on its left by a cut of width zero, walked in both
    directions, so that the boundary encloses the part without its holes.
    """
    merged = part.outline
    for hole in sorted(part.holes, key=lambda ring: int(ring[:, 0].min())):
        leftmost = np.flatnonzero(hole[:, 0] == hole[:, 0].min())
        first = leftmost[hole[leftmost, 1].argmin()]
        loop = np.roll(hole, -first, axis=0)  # starts at the upper end of its leftmost edge
        x, y = loop[0]
        following = np.roll(merged, -1, axis=0)
        low = np.minimum(merged[:, 1], following[:, 1])
        high = np.maximum(merged[:, 1], following[:, 1])
        crossed = (low <= y) & (y < high) & (merged[:, 0] == following[:, 0])
        crossed &= merged[:, 0] <= x
        edge = int(np.where(crossed, merged[:, 0], -1).argmax())  # the nearest edge on the left
        entry = np.array([[merged[edge, 0], y]])
        detour = np.concatenate([entry, loop, loop[:1], entry])
        merged = np.concatenate([merged[: edge + 1], detour, merged[edge + 1 :]])
    return merged


def _trace_loops(inside: Pixels) -> Iterator[list[tuple[int, int]]]:
    """Yield the corners of closed walks along all boundaries, the mask on the right-hand side.

    Where two pixels touch at a corner, the walk turns right and so stays at its pixel.
    """
    edges = _boundary_edges(inside)
    stride = inside.shape[1] + 1
    offsets = tuple(4 * (step_x + step_y * stride) for step_x, step_y in _STEPS)
    for start in sorted(edges):
        if start not in edges:
            continue
        corners, edge = [], start
        while edge in edges:
            edges.remove(edge)
            direction = edge % 4
            vertex = edge - direction + offsets[direction]
            ahead = [vertex + (direction + turn) % 4 for turn in (1, 0, 3)]
            following = next((other for other in ahead if other in edges), start)
            if following % 4 != direction:
                corners.append((vertex // 4 % stride, vertex // 4 // stride))
            edge = following
        yield corners


def _boundary_edges(inside: Pixels) -> set[int]:
    """Return all directed pixel edges with the mask on their right as 4 * vertex + direction."""
    padded = np.pad(inside, 1)
    here, above = padded[1:, 1:], padded[:-1, 1:]
    left = padded[1:, :-1]
    stride = inside.shape[1] + 1
    vertex = np.arange(here.size).reshape(here.shape)
    edges = (
        4 * vertex[here & ~above],  # top of a pixel: to the right
        4 * vertex[left & ~here] + 1,  # right side of the pixel on the left: down
        4 * (vertex[above & ~here] + 1) + 2,  # bottom of the pixel above: to the left
        4 * (vertex[here & ~left] + stride) + 3,  # left side of a pixel: up
    )
    return set(np.concatenate(edges).tolist())


def _split_at_repeated_corners(loop: Sequence[tuple[int, int]]) -> Iterator[Ring]:
    """Split a loop that meets a corner twice into simple rings."""
    walked: list[tuple[int, int]] = []
    position: dict[tuple[int, int], int] = {}
    for corner in loop:
        if corner in position:
            first = position[corner]
            yield np.array(walked[first:], dtype=np.int64)
            for other in walked[first:]:
                del position[other]
            del walked[first:]
        position[corner] = len(walked)
        walked.append(corner)
    yield np.array(walked, dtype=np.int64)


def _find_owners(rings: Sequence[Ring], shape: tuple[int, ...]) -> dict[int, list[int]]:
    """Map the index of each outline to the indices of its holes.

    Left of the pixel above the top of a hole, the nearest boundary is its outline, or a hole of the
    same part whose top is higher.
    """
    left_side = np.full((shape[0], shape[1] + 1), -1)  # ring that passes left of a pixel, upwards
    for index, ring in enumerate(rings):
        for (x, bottom), top in zip(ring, np.roll(ring, -1, axis=0)[:, 1], strict=True):
            left_side[top:bottom, x] = index
    owners: dict[int, list[int]] = {}
    owner_of: dict[int, int] = {}
    tops = [tuple(ring[np.lexsort(ring.T)[0]]) for ring in rings]
    for index in sorted(range(len(rings)), key=lambda index: tops[index][1]):
        if signed_area(rings[index]) > 0:
            owners[index], owner_of[index] = [], index
        else:
            x, y = tops[index]
            row = left_side[y - 1, : x + 1]
            owner_of[index] = owner_of[int(row[np.flatnonzero(row >= 0)[-1]])]
            owners[owner_of[index]].append(index)
    return owners


def draw_ring(ring: Ring | npt.NDArray[np.float64], size: tuple[int, int]) -> Pixels:
    """Return the (H, W) pixels inside a closed boundary, those whose centers it encloses.

    Args:
        ring: (K, 2) x and y of at least three corners, within the image.
        size: (H, W).
    """
    corners = np.asarray(ring, dtype=np.float64).ravel().tolist()
    runs = coco_mask.frPyObjects([corners], *size)
    drawn: Pixels = coco_mask.decode(runs)[..., 0].view(np.bool_)
    return drawn


def draw_part(part: Part, size: tuple[int, int]) -> Pixels:
    """Return the (H, W) pixels of a part."""
    return draw_ring(merge_holes(part), size)
