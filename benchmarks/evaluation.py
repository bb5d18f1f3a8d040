"""Scoring a folder of masks against a plain loop over the same files, in one run.

The loop opens both masks of an image with Pillow and counts pairs with NumPy's bincount. The
predictions are the true masks, moved by a few pixels. Both count the same before times are told.

Run: python benchmarks/evaluation.py [--root DIR] [--workers 2] [--repeats 9] [--json FILE]

DIR is a data set in VOC layout (or TAG2MASK_VOC_ANIMALS); without one, masks are painted.
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

from row import Row, by_turns, save, show
from tag2mask.data.voc import VOC_CLASSES
from tag2mask.evaluation.folders import MaskPair, count_files, evaluate_folder
from tag2mask.functional.cam import upsample
from tag2mask.io.masks import save_mask
from tag2mask.types import IGNORE

NUM_CLASSES = len(VOC_CLASSES) + 1
GOOD = round(1 / 1.8, 3)
MOVED = (3, 7)
"""By how many rows and columns predictions are moved."""


def paint(folder: Path, count: int) -> None:
    """Write masks with a few smooth areas and ignored borders, 400 x 300 px."""
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True)
    for index in range(count):
        score = upsample(torch.rand(1, NUM_CLASSES, 3, 4, generator=generator), (300, 400))
        value, winner = score.topk(2, dim=1)
        mask = torch.where(value[:, 0] - value[:, 1] < 0.01, IGNORE, winner[:, 0])[0]
        save_mask(mask.numpy().astype(np.uint8), folder / f"{index:04d}.png")


def predict(truth: Path, out: Path) -> list[MaskPair]:
    """Write moved copies of the true masks with their class list."""
    out.mkdir()
    described = {"classes": VOC_CLASSES, "class_source": "tags", "settings": {}}
    (out / "classes.json").write_text(json.dumps(described), encoding="utf-8")
    pairs = []
    for path in sorted(truth.glob("*.png")):
        with PILImage.open(path) as picture:
            mask = np.roll(np.asarray(picture), MOVED, axis=(0, 1))
        save_mask(mask, out / path.name)
        pairs.append(MaskPair(path, out / path.name))
    return pairs


def plain_loop(pairs: list[MaskPair]) -> npt.NDArray[np.int64]:
    """(C, C) pixels by true and predicted class, file by file."""
    counts = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
    for true_path, path in pairs:
        true, found = np.array(PILImage.open(true_path)), np.array(PILImage.open(path))
        known = (true < NUM_CLASSES) & (found < NUM_CLASSES)
        codes = NUM_CLASSES * true[known].astype(np.int64) + found[known]
        counts += np.bincount(codes, minlength=NUM_CLASSES**2).reshape(counts.shape)
    return counts


def comparisons(truth: Path, pairs: list[MaskPair], workers: int, repeats: int) -> list[Row]:
    """Compare counts, then times."""
    expected = plain_loop(pairs)
    for threads in (1, workers):
        found = count_files(pairs, len(VOC_CLASSES), len(VOC_CLASSES), threads)
        if not np.array_equal(found[:NUM_CLASSES, :NUM_CLASSES], expected):
            raise SystemExit("the counts differ: times mean nothing")
    predictions = pairs[0].prediction.parent
    spent = by_turns(
        {
            "loop": lambda: plain_loop(pairs),
            "one": lambda: evaluate_folder(predictions, truth, workers=1),
            "several": lambda: evaluate_folder(predictions, truth, workers=workers),
        },
        repeats,
    )
    what = f"evaluate {len(pairs)} masks"
    return [
        Row(f"{what}, one thread", spent["one"], "plain loop", spent["loop"]),
        Row(f"{what}, {workers} threads", spent["several"], "plain loop", spent["loop"], most=GOOD),
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
            paint(truth, 437)
        else:
            truth = Path(args.root, "SegmentationClass")
        pairs = predict(truth, Path(scratch, "predictions"))
        rows = comparisons(truth, pairs, args.workers, args.repeats)
    show(rows)
    save(args.json, rows, masks="painted" if args.root is None else "official", files=len(pairs))


if __name__ == "__main__":
    main()
