"""Time IRN's random walk along a stencil against squaring the dense transition matrix.

Both walks first run on a small grid. There the stencil walk must agree with a dense walk in float64
to 1e-5; a dense walk in float32 is ten times less accurate. Then they run on the 96 x 128 grid of
an image of 384 x 512 px, where the dense matrix has 12,288 rows (600 MB). By default one of its
eight squarings is timed and multiplied by eight, as the row says, and the result is compared with
256 products of CAM and matrix; --all-squarings does all eight.

Run: python benchmarks/irn_walk.py [--height 96] [--width 128] [--repeats 5] [--all-squarings]
    [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from row import Row, check_gap, save, shortest_times, show
from tag2mask.functional.stencil import both_directions, half_disc_offsets, random_walk
from tag2mask.methods.irn.affinity import boundary_affinity

RADIUS = 5
POWER = 10
CLASSES = 3
SQUARINGS = 8
STEPS = 2**SQUARINGS
SMALL = (36, 48)
TOLERANCE = 1e-5
"""For comparisons with the dense walk in float64."""
FLOAT32_TOLERANCE = 1e-3
"""For comparisons with a dense walk in float32, whose rounding errors add up."""
GOAL = 0.01
"""Largest acceptable share of the dense walk's time."""


class Case(NamedTuple):
    """One grid with its CAM and affinity."""

    cam: Tensor
    """(1, CLASSES, h, w) in [0, 1]."""
    half: Tensor
    """(1, K, h, w) affinity to the power POWER, for one of each two opposite directions."""


def make_case(height: int, width: int) -> Case:
    """Make random smooth boundaries and CAM."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1 + CLASSES, height // 4, width // 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    half = boundary_affinity(fine[:, :1] ** 4, half_disc_offsets(RADIUS)) ** POWER
    return Case(fine[:, 1:], half)


def transition_matrix(case: Case) -> Tensor:
    """(L, L) matrix of one step of the walk; columns sum to 1."""
    height, width = case.cam.shape[-2:]
    matrix = torch.eye(height * width, dtype=case.cam.dtype)
    position = torch.arange(height * width).view(height, width)
    for tap, (dy, dx) in enumerate(half_disc_offsets(RADIUS)):
        columns = slice(max(0, -dx), width - max(0, dx))
        source = position[: height - dy, columns].flatten()
        target = source + dy * width + dx
        value = case.half[0, tap, : height - dy, columns].flatten()
        matrix[source, target] = value
        matrix[target, source] = value
    return matrix / matrix.sum(dim=0, keepdim=True)


def dense_walk(case: Case) -> Tensor:
    """Build the matrix, square it eight times and multiply once."""
    matrix = transition_matrix(case)
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix
    return (case.cam.flatten(2)[0] @ matrix).view(case.cam.shape)


def stencil_walk(case: Case) -> Tensor:
    """Walk 256 steps along a stencil of 69 neighbors."""
    pairs, offsets = both_directions(case.half, half_disc_offsets(RADIUS))
    return random_walk(case.cam, pairs, offsets, STEPS)


def largest_gap(ours: Tensor, reference: Tensor) -> float:
    """Return the largest absolute difference."""
    return float((ours - reference).abs().max())


def large_row(case: Case, repeats: int, all_squarings: bool) -> tuple[Row, dict[str, object]]:
    """Compare the walks on the large grid; the dense walk takes minutes and runs once."""
    height, width = case.cam.shape[-2:]
    ours = shortest_times({"ours": lambda: stencil_walk(case)}, repeats)["ours"]
    result = stencil_walk(case)
    matrix = transition_matrix(case)
    squarings = SQUARINGS if all_squarings else 1
    powered = matrix
    start = time.perf_counter()
    for _ in range(squarings):
        powered = powered @ powered
    squaring = 1e3 * (time.perf_counter() - start) / squarings
    walked = case.cam.flatten(2)[0]
    if all_squarings:
        walked = walked @ powered
    else:
        del powered
        for _ in range(STEPS):
            walked = walked @ matrix
    expected = walked.view(case.cam.shape)
    reference = "8 squarings, dense" if all_squarings else "8 x one squaring, dense"
    gap = check_gap("large grid", largest_gap(result, expected), FLOAT32_TOLERANCE)
    row = Row(
        f"walk {height} x {width}, {CLASSES} classes",
        ours,
        reference,
        SQUARINGS * squaring,
        max_ratio=GOAL,
    )
    checked = "8 squarings" if all_squarings else f"{STEPS} products with the dense matrix"
    return row, {"one_squaring_ms": squaring, "gap_large": gap, "large_reference": checked}


def comparisons(
    height: int, width: int, repeats: int, all_squarings: bool = False
) -> tuple[list[Row], dict[str, object]]:
    """Compare the results, then the times, on a small and a large grid."""
    small = make_case(*SMALL)
    ours, exact = stencil_walk(small), dense_walk(Case(small.cam.double(), small.half.double()))
    gap = check_gap("small grid", largest_gap(ours, exact), TOLERANCE)
    float32_gap = check_gap(
        "small grid, float32", largest_gap(dense_walk(small), exact), FLOAT32_TOLERANCE
    )
    times = shortest_times(
        {"ours": lambda: stencil_walk(small), "dense": lambda: dense_walk(small)}, repeats
    )
    name = f"walk {SMALL[0]} x {SMALL[1]}, {CLASSES} classes"
    rows = [Row(name, times["ours"], "8 squarings, dense", times["dense"])]
    row, details = large_row(make_case(height, width), repeats, all_squarings)
    return [*rows, row], {"gap_small": gap, "gap_small_dense_float32": float32_gap, **details}


def main() -> None:
    """Print the rows and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--all-squarings", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows, details = comparisons(args.height, args.width, args.repeats, args.all_squarings)
    show(rows)
    save(args.json, rows, **details)


if __name__ == "__main__":
    main()
