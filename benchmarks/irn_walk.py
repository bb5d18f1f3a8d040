"""IRN's walk along a stencil against powers of the dense matrix by squaring, in one run.

First both walks, whole, on a grid where the dense one is quick; the result is that of the dense one
in float64 to 1e-5 (in float32 squaring itself is ten times further off). Then on the 96 x 128 cells
of an image of 384 x 512 px. There the dense matrix has 12,288 rows (600 MB): by default one of its
eight squarings is timed and counted eight times (the row says so), and the result is compared with
the same matrix multiplied into the maps 256 times. --whole squares eight times.

Run: python benchmarks/irn_walk.py [--height 96] [--width 128] [--repeats 5] [--whole] [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from row import Row, by_turns, reject_gap, save, show
from tag2mask.functional.stencil import both_directions, half_disc_offsets, random_walk
from tag2mask.methods.irn.affinity import boundary_affinity

RADIUS = 5
POWER = 10
MAPS = 3
SQUARINGS = 8
STEPS = 2**SQUARINGS
SMALL = (36, 48)
TOLERANCE = 1e-5
"""Against the dense walk in float64."""
ROUGH = 1e-3
"""Against a dense walk in float32, whose own rounding adds up."""
LIMIT = 0.01
"""Largest share of the dense walk's time that is good enough."""


class Case(NamedTuple):
    """One grid with its affinity."""

    maps: Tensor
    """(1, MAPS, h, w) evidence in [0, 1]."""
    half: Tensor
    """(1, K, h, w) affinity to its power, one of each two directions."""


def case(height: int, width: int) -> Case:
    """Random smooth boundaries and evidence."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1 + MAPS, height // 4, width // 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    half = boundary_affinity(fine[:, :1] ** 4, half_disc_offsets(RADIUS)) ** POWER
    return Case(fine[:, 1:], half)


def transition(one: Case) -> Tensor:
    """(L, L) matrix of one step, columns sum to 1."""
    height, width = one.maps.shape[-2:]
    matrix = torch.eye(height * width, dtype=one.maps.dtype)
    place = torch.arange(height * width).view(height, width)
    for tap, (dy, dx) in enumerate(half_disc_offsets(RADIUS)):
        columns = slice(max(0, -dx), width - max(0, dx))
        here = place[: height - dy, columns].flatten()
        there = here + dy * width + dx
        value = one.half[0, tap, : height - dy, columns].flatten()
        matrix[here, there] = value
        matrix[there, here] = value
    return matrix / matrix.sum(dim=0, keepdim=True)


def dense_walk(one: Case) -> Tensor:
    """Build the matrix, square it eight times, multiply once."""
    matrix = transition(one)
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix
    return (one.maps.flatten(2)[0] @ matrix).view(one.maps.shape)


def stencil_walk(one: Case) -> Tensor:
    """Ours: 256 steps along 69 neighbors."""
    pairs, offsets = both_directions(one.half, half_disc_offsets(RADIUS))
    return random_walk(one.maps, pairs, offsets, STEPS)


def gap_of(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference."""
    return float((ours - theirs).abs().max())


def large_row(one: Case, repeats: int, whole: bool) -> tuple[Row, dict[str, object]]:
    """The walk on the large grid; the dense one is not repeated, as it takes minutes."""
    height, width = one.maps.shape[-2:]
    ours = by_turns({"ours": lambda: stencil_walk(one)}, repeats)["ours"]
    found = stencil_walk(one)
    matrix = transition(one)
    squarings = SQUARINGS if whole else 1
    powered = matrix
    began = time.perf_counter()
    for _ in range(squarings):
        powered = powered @ powered
    squaring = 1e3 * (time.perf_counter() - began) / squarings
    moved = one.maps.flatten(2)[0]
    if whole:
        moved = moved @ powered
    else:
        del powered
        for _ in range(STEPS):
            moved = moved @ matrix
    expected = moved.view(one.maps.shape)
    reference = "8 squarings, dense" if whole else "8 x one squaring, dense"
    gap = reject_gap("large grid", gap_of(found, expected), ROUGH)
    row = Row(
        f"walk {height} x {width}, {MAPS} maps", ours, reference, SQUARINGS * squaring, most=LIMIT
    )
    checked = "8 squarings" if whole else f"{STEPS} products with the dense matrix"
    return row, {"one_squaring_ms": squaring, "gap_large": gap, "large_compared_with": checked}


def comparisons(
    height: int, width: int, repeats: int, whole: bool = False
) -> tuple[list[Row], dict[str, object]]:
    """Compare results, then times, on a small and a large grid."""
    small = case(*SMALL)
    ours, exact = stencil_walk(small), dense_walk(Case(small.maps.double(), small.half.double()))
    gap = reject_gap("small grid", gap_of(ours, exact), TOLERANCE)
    rough = reject_gap("small grid, float32", gap_of(dense_walk(small), exact), ROUGH)
    spent = by_turns(
        {"ours": lambda: stencil_walk(small), "dense": lambda: dense_walk(small)}, repeats
    )
    named = f"walk {SMALL[0]} x {SMALL[1]}, {MAPS} maps"
    rows = [Row(named, spent["ours"], "8 squarings, dense", spent["dense"])]
    row, details = large_row(case(height, width), repeats, whole)
    return [*rows, row], {"gap_small": gap, "gap_small_dense_float32": rough, **details}


def main() -> None:
    """Print the rows and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows, details = comparisons(args.height, args.width, args.repeats, args.whole)
    show(rows)
    save(args.json, rows, **details)


if __name__ == "__main__":
    main()
