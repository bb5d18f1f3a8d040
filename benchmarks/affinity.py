"""Radius mask, affinity labels and propagation against plain loops, in one run.

The loops visit one cell of the grid after the other and treat its window as an array; those of the
mask visit every cell of the window, too. Ours builds the mask anew here; in training it is kept.

Run: python benchmarks/affinity.py [--batch 2] [--side 320] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from row import Row, by_turns, reject_gap, save, show
from tag2mask.functional import affinity
from tag2mask.types import IGNORE

RADIUS = 8
STRIDE = 16
KEYS = 3
"""Background and two classes, against two scores of background: 6 maps."""
TOLERANCE = 1e-5
Array = npt.NDArray[np.float32]


def windows(side: int) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Each cell of a square grid and the cells of its window."""
    place = np.arange(side * side).reshape(side, side)
    for y in range(side):
        for x in range(side):
            rows = slice(max(0, y - RADIUS), y + RADIUS + 1)
            columns = slice(max(0, x - RADIUS), x + RADIUS + 1)
            yield y * side + x, place[rows, columns].ravel()


def loop_mask(side: int) -> npt.NDArray[np.bool_]:
    """Pairs within each other's window, pair by pair."""
    mask = np.zeros((side * side, side * side), dtype=bool)
    for y in range(side):
        for x in range(side):
            for row in range(max(0, y - RADIUS), min(side, y + RADIUS + 1)):
                for column in range(max(0, x - RADIUS), min(side, x + RADIUS + 1)):
                    mask[y * side + x, row * side + column] = True
    return mask


def loop_label(label: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.uint8]:
    """(N, H, W) labels to (N, L, L) pairs, cell by cell."""
    step = label.shape[1] // side
    pairs = np.full((len(label), side**2, side**2), IGNORE, dtype=np.uint8)
    for index, picture in enumerate(label):
        cells = picture[::step, ::step].ravel()
        for cell, window in windows(side):
            if cells[cell] != IGNORE:
                known = window[cells[window] != IGNORE]
                pairs[index, cell, known] = cells[known] == cells[cell]
    return pairs


def loop_propagation(scores: Array, pairs: Array) -> Array:
    """(N, M, h, h) scores and (N, L, L) affinity to (N, M, h, h), cell by cell."""
    moved = np.zeros_like(scores).reshape(*scores.shape[:2], -1)
    flat = scores.reshape(moved.shape)
    for index in range(len(scores)):
        for cell, window in windows(scores.shape[-1]):
            column = pairs[index, window, cell] ** 2
            moved[index, :, cell] = flat[index][:, window] @ column / (column.sum() + 0.1)
    return moved.reshape(scores.shape)


def comparisons(batch: int, side_px: int, repeats: int) -> list[Row]:
    """Compare results, then times, loops and ours by turns."""
    rng = np.random.default_rng(0)
    side, large = side_px // STRIDE, side_px * 3 // 2 // STRIDE
    label = rng.choice([0, 1, 2, IGNORE], size=(batch, side_px, side_px))
    scores = rng.random((batch, 2 * KEYS, large, large), dtype=np.float32)
    pairs = rng.random((batch, large**2, large**2), dtype=np.float32)
    label_t, scores_t, pairs_t = map(torch.from_numpy, (label, scores, pairs))

    def mask() -> Tensor:
        affinity._radius_mask.cache_clear()  # as for a size seen for the first time
        return affinity.radius_mask(large, large, RADIUS)

    parts: dict[str, tuple[Callable[[], npt.NDArray[np.generic]], Callable[[], Tensor]]] = {
        "radius mask": (lambda: loop_mask(large), mask),
        "affinity label": (
            lambda: loop_label(label, side),
            lambda: affinity.affinity_label(label_t, (side, side), RADIUS),
        ),
        "propagation": (
            lambda: loop_propagation(scores, pairs),
            lambda: affinity.propagate(scores_t, pairs_t, RADIUS),
        ),
    }
    rows = []
    for name, (loops, ours) in parts.items():
        gap = np.abs(loops().astype(np.float64) - ours().numpy().astype(np.float64)).max()
        reject_gap(name, float(gap), TOLERANCE)
        spent = by_turns({"loops": loops, "ours": ours}, repeats)
        rows.append(Row(name, spent["ours"], "loops over cells", spent["loops"], most=0.2))
    return rows


def main() -> None:
    """Print the rows and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = comparisons(args.batch, args.side, args.repeats)
    show(rows)
    save(args.json, rows)


if __name__ == "__main__":
    main()
