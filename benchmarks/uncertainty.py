"""Compare the uncertainty of each image with its true IoU, which the uncertainty never sees.

Run: python benchmarks/uncertainty.py RUN --root DIR --list devval --json FILE
    [--limit N] [--entry NAME] [KEY=VALUE ...]

The IoU of an image is the mean over the classes that its mask or its true mask shows; background
does not count, and an image without a class in either has 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from row import add_entry, command, run_as_command
from tag2mask import plugins
from tag2mask.config.overrides import apply_overrides, parse_overrides
from tag2mask.config.recipe import Recipe
from tag2mask.data.base import Source
from tag2mask.errors import RunError
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.evaluation.sources import spread_indices
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.protocol import NetworkOutput
from tag2mask.types import ClassSource, Image, Mask

CLASS_SOURCES: tuple[ClassSource, ...] = ("classifier", "tags")
UNCERTAIN_SHARE = 0.2
"""Share of the most uncertain images whose IoU is compared with that of the rest."""
TIMED_IMAGES = 10


class OncePerImage(Segmenter):
    """Runs the network once for both class sources."""

    _last: tuple[Image, NetworkOutput] | None = None

    def run_network(
        self, image: Image, tags: npt.NDArray[np.uint8] | None = None, name: str = ""
    ) -> NetworkOutput:
        """Return the output of the last image again, if it is the same image."""
        if self._last is None or self._last[0] is not image:
            self._last = (image, super().run_network(image, None, name))
        return self._last[1]


def image_iou(truth: Mask, mask: Mask, num_classes: int) -> float:
    """Return the mean IoU of one image over the foreground classes that either mask shows."""
    matrix = ConfusionMatrix(num_classes)
    matrix.update(truth, mask)
    iou = matrix.iou()[1:]
    return float(np.nanmean(iou)) if not np.isnan(iou).all() else 1.0


def measure(segmenter: Segmenter, source: Source, limit: int | None) -> list[dict[str, Any]]:
    """Return one row per image and class source: uncertainty, its parts and the true IoU."""
    rows: list[dict[str, Any]] = []
    indices = spread_indices(len(source), limit)
    for position, index in enumerate(indices, start=1):
        sample = source[index]
        assert sample.mask is not None
        for class_source in CLASS_SOURCES:
            tags = sample.tags if class_source == "tags" else None
            made = segmenter.segment(sample.image, tags, name=sample.name)
            assert made.uncertainty is not None
            iou = image_iou(sample.mask, made.mask, len(source.class_names) + 1)
            row = {"class_source": class_source, "iou": iou, "total": made.uncertainty.total}
            rows.append({**row, **made.uncertainty.parts})
        if position % 20 == 0:
            so_far = {
                name: summarize([row for row in rows if row["class_source"] == name])
                for name in CLASS_SOURCES
            }
            print(f"{position} of {len(indices)} images: {so_far}", flush=True)
    return rows


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rank correlations with the true IoU, and the IoU of the most uncertain images."""
    iou = np.array([row["iou"] for row in rows])
    names = [name for name in rows[0] if name not in ("class_source", "iou")]
    ranks = {
        name: round(-float(spearmanr([row.get(name, 0.0) for row in rows], iou)[0]), 3)
        for name in names
    }
    order = np.argsort([-row["total"] for row in rows], kind="stable")
    count = round(UNCERTAIN_SHARE * len(rows))
    uncertain, rest = iou[order[:count]].mean(), iou[order[count:]].mean()
    return {
        "images": len(rows),
        "mean_iou": round(float(iou.mean()), 4),
        "rank_correlation": ranks,
        "iou_of_uncertain": round(float(uncertain), 4),
        "iou_of_rest": round(float(rest), 4),
        "ratio": round(float(uncertain / rest), 3),
    }


def added_time(segmenter: Segmenter, source: Source) -> float:
    """Return the processor time of the uncertainty as a share of that of the masks."""
    plain, complete = 0.0, 0.0
    for index in range(min(TIMED_IMAGES, len(source))):
        sample = source[index]
        start = time.process_time()
        output = segmenter.run_network(sample.image, sample.tags)
        classes = segmenter.select_classes(output, sample.tags, "tags")
        mask = segmenter.compute_mask(sample.image, output, classes).mask.numpy()
        middle = time.process_time()
        made = segmenter.segment(sample.image, sample.tags)
        end = time.process_time()
        if not np.array_equal(mask, made.mask):
            raise RunError(f"{sample.name}: the uncertainty changes the mask")
        if index:  # the first image compiles kernels
            plain, complete = plain + middle - start, complete + end - middle
    return complete / plain - 1


def main() -> None:
    """Print the correlation and the ratio of each class source, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="inference settings")
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--list", default="devval", help="list of images with true masks")
    parser.add_argument("--limit", type=int, help="use at most this many images")
    parser.add_argument("--json", type=Path, required=True, help="file; receives one entry")
    parser.add_argument("--entry", help="name of the entry; default: run and list")
    args = parser.parse_intermixed_args()
    torch.set_num_threads(1)

    def configure(trained: Recipe) -> Recipe:
        return apply_overrides(trained.plain(), parse_overrides(args.words), str(args.run))

    segmenter = OncePerImage.load(args.run, "last", configure=configure)
    data = segmenter.recipe.data.model_copy(update={"root": args.root, "labels": None})
    source: Source = plugins.load("data", data.name)(data, f"{args.list}.txt")
    rows = measure(segmenter, source, args.limit)
    tables = {
        name: summarize([row for row in rows if row["class_source"] == name])
        for name in CLASS_SOURCES
    }
    for name, table in tables.items():
        print(
            f"classes from {name}: rank correlation {table['rank_correlation']['total']:.3f}, mean "
            f"IoU {table['iou_of_uncertain']:.3f} of the {UNCERTAIN_SHARE:.0%} most uncertain and "
            f"{table['iou_of_rest']:.3f} of the rest (ratio {table['ratio']:.3f})"
        )
        print(f"  parts: {table['rank_correlation']}")
    plain = Segmenter(segmenter.method, segmenter.recipe)
    added = added_time(plain, source)
    print(f"added processor time: {added:.1%}")
    entry = args.entry or f"{args.run.resolve().name}, {args.list}"
    record = {"command": command(), "list": args.list, "limit": args.limit, "tables": tables}
    add_entry(args.json, entry, {**record, "added_time": round(added, 4)})


if __name__ == "__main__":
    run_as_command(main)
