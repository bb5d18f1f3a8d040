"""Time the evaluation of a mask folder against a plain loop over the same files.

The loop opens both masks of an image with Pillow and counts pairs of values with NumPy's bincount.
The predictions are the true masks, moved by a few pixels. Times are reported only if the counts are
identical.

Run: python benchmarks/evaluation.py [--root DIR] [--workers 2] [--repeats 9] [--json FILE]

DIR is a data set in VOC layout (or TAG2MASK_VOC_ANIMALS); without one, the masks are synthetic.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PILImage

from row import Row, save, shortest_times, show
from tag2mask.data.voc import VOC_CLASSES
from tag2mask.errors import RunError
from tag2mask.evaluation.folders import MaskPair, count_files, evaluate_folder
from tag2mask.functional.cam import upsample
from tag2mask.io.masks import save_mask
from tag2mask.types import IGNORE

NUM_CLASSES = len(VOC_CLASSES) + 1
GOAL = round(1 / 1.8, 3)
SHIFT = (3, 7)
"""Rows and columns by which predictions are moved."""


def write_masks(folder: Path, count: int) -> None:
    """Write synthetic masks with a few smooth areas and ignored borders, 400 x 300 px."""
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True)
    for index in range(count):
        score = upsample(torch.rand(1, NUM_CLASSES, 3, 4, generator=generator), (300, 400))
        value, winner = score.topk(2, dim=1)
        mask = torch.where(value[:, 0] - value[:, 1] < 0.01, IGNORE, winner[:, 0])[0]
        save_mask(mask.numpy().astype(np.uint8), folder / f"{index:04d}.png")


def write_predictions(truth: Path, out: Path) -> list[MaskPair]:
    """Write moved copies of the true masks, and their class list."""
    out.mkdir()
    class_list = {"classes": VOC_CLASSES, "class_source": "tags", "settings": {}}
    (out / "classes.json").write_text(json.dumps(class_list), encoding="utf-8")
    pairs = []
    for path in sorted(truth.glob("*.png")):
        with PILImage.open(path) as picture:
            mask = np.roll(np.asarray(picture), SHIFT, axis=(0, 1))
        save_mask(mask, out / path.name)
        pairs.append(MaskPair(path, out / path.name))
    return pairs


def plain_loop(pairs: list[MaskPair]) -> npt.NDArray[np.int64]:
    """Count pixels by true and predicted class, file by file; (C, C)."""
    counts = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
    for true_path, path in pairs:
        truth, mask = np.array(PILImage.open(true_path)), np.array(PILImage.open(path))
        counted = (truth < NUM_CLASSES) & (mask < NUM_CLASSES)
        codes = NUM_CLASSES * truth[counted].astype(np.int64) + mask[counted]
        counts += np.bincount(codes, minlength=NUM_CLASSES**2).reshape(counts.shape)
    return counts


def comparisons(truth: Path, pairs: list[MaskPair], workers: int, repeats: int) -> list[Row]:
    """Compare the counts, then the times."""
    expected = plain_loop(pairs)
    for threads in (1, workers):
        counts = count_files(pairs, len(VOC_CLASSES), len(VOC_CLASSES), threads).pairs
        if not np.array_equal(counts[:NUM_CLASSES, :NUM_CLASSES], expected):
            raise RunError("the counts differ; their times cannot be compared")
    predictions = pairs[0].prediction.parent
    times = shortest_times(
        {
            "loop": lambda: plain_loop(pairs),
            "one": lambda: evaluate_folder(predictions, truth, workers=1),
            "several": lambda: evaluate_folder(predictions, truth, workers=workers),
        },
        repeats,
    )
    case = f"evaluate {len(pairs)} masks"
    return [
        Row(f"{case}, one thread", times["one"], "plain loop", times["loop"]),
        Row(
            f"{case}, {workers} threads",
            times["several"],
            "plain loop",
            times["loop"],
            max_ratio=GOAL,
        ),
    ]


def main() -> None:
    """Print the rows and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=os.environ.get("TAG2MASK_VOC_ANIMALS"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.root is None:
            truth = Path(scratch, "SegmentationClass")
            write_masks(truth, 437)
        else:
            truth = Path(args.root, "SegmentationClass")
        pairs = write_predictions(truth, Path(scratch, "predictions"))
        rows = comparisons(truth, pairs, args.workers, args.repeats)
    show(rows)
    save(args.json, rows, masks="synthetic" if args.root is None else "official", files=len(pairs))


if __name__ == "__main__":
    main()
