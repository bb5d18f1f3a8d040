"""Cut a large image into overlapping tiles, and blend what was computed for each of them.

All tiles have the same size. Along each axis, the weights of the tiles at a pixel sum to 1; they
rise linearly over the overlap with a neighbor, so that no seam shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TileAxis:
    """The tiles along one side of an image."""

    length: int
    """Side of the image in pixels."""
    side: int
    """Side of a tile in pixels, at most `length`."""
    overlap: int
    """Smallest overlap of neighbors in pixels, less than `side`."""

    @property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each tile, evenly spaced; the last tile ends with the image.

        Example:
            >>> TileAxis(length=100, side=40, overlap=10).starts
            (0, 30, 60)
        """
        spare = self.length - self.side
        steps = math.ceil(spare / (self.side - self.overlap))
        return tuple(round(index * spare / steps) for index in range(steps + 1)) if steps else (0,)

    def weights(self) -> tuple[Tensor, ...]:
        """Return the (side,) float32 weight of each pixel of each tile.

        Example:
            >>> [one.tolist() for one in TileAxis(length=6, side=4, overlap=2).weights()]
            [[1.0, 1.0, 0.75, 0.25], [0.25, 0.75, 1.0, 1.0]]
        """
        starts, found = self.starts, []
        total = torch.zeros(self.length)
        rise = ((torch.arange(self.side) + 0.5) / max(1, self.overlap)).clamp_max(1)
        for start in starts:
            weight = torch.ones(self.side)
            if start > 0:
                weight = weight * rise
            if start + self.side < self.length:
                weight = weight * rise.flip(0)
            total[start : start + self.side] += weight
            found.append(weight)
        return tuple(
            weight / total[start : start + self.side]
            for start, weight in zip(starts, found, strict=True)
        )

    def core(self, index: int) -> tuple[float, float]:
        """Return the part of a tile, from and to in [0, 1], that has most of the weight.

        The cores of all tiles cover the image. Outside, a network sees little of the surroundings.
        """
        margin = self.overlap / 2 / self.side
        start = self.starts[index]
        last = start + self.side == self.length
        return (margin if start > 0 else 0.0), (1.0 if last else 1.0 - margin)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of an image."""

    row: int
    """Its position among the tiles, from the top."""
    column: int
    """From the left."""
    top: int
    """First row of pixels."""
    left: int
    height: int
    width: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Its rows and columns of the image."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of an image."""

    rows: TileAxis
    columns: TileAxis

    @classmethod
    def of(cls, size: tuple[int, int], tile_px: int | None, overlap: float) -> TileGrid:
        """Cut an image of (H, W) `size`.

        Args:
            size: In pixels.
            tile_px: Side of a tile; None: one tile.
            overlap: Smallest share of a tile's side that a neighbor covers, in [0, 0.5].
        """

        def axis(length: int) -> TileAxis:
            side = min(length, tile_px or length)
            return TileAxis(length, side, int(side * overlap))

        return cls(axis(size[0]), axis(size[1]))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.rows.length, self.columns.length

    @property
    def tile_size(self) -> tuple[int, int]:
        """(h, w) of every tile."""
        return self.rows.side, self.columns.side

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def __iter__(self) -> Iterator[Tile]:
        """Yield the tiles row by row."""
        for row, top in enumerate(self.rows.starts):
            for column, left in enumerate(self.columns.starts):
                yield Tile(row, column, top, left, self.rows.side, self.columns.side)

    def core(self, tile: Tile, size: tuple[int, int]) -> tuple[slice, slice]:
        """Return the core of a tile in maps of (h, w) `size`; see `TileAxis.core`."""
        parts = (self.rows.core(tile.row), self.columns.core(tile.column))
        rows, columns = (
            slice(int(low * side), max(int(low * side) + 1, math.ceil(high * side)))
            for (low, high), side in zip(parts, size, strict=True)
        )
        return rows, columns
