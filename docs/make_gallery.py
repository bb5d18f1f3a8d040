"""Draw images and masks that a random number chooses, and print their scores.

Run: python docs/make_gallery.py RUN IMAGES --count 8 --seed 1 --out gallery.jpg
     python docs/make_gallery.py RUN VOC --split train --count 8 --seed 1

A folder with tags gives the tags to the network, unless `--untagged` says otherwise; one with true
masks adds them, with the overlap (IoU) of each image.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from make_demo_picture import stack_rows

from tag2mask.evaluation.image_scores import ScoredMask, score_images
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.tagged_folder import open_source
from tag2mask.io.image_inputs import input_images
from tag2mask.io.images import read_image
from tag2mask.types import Mask, Prediction
from tag2mask.visualization.gallery import draw_overlay
from tag2mask.visualization.panels import Panel, mask_legend
from tag2mask.visualization.strips import draw_strip

Made = tuple[Prediction, Mask | None]


def tagged(segmenter: Segmenter, args: argparse.Namespace) -> Iterator[Made]:
    """Segment random images by their tags; also return their true masks."""
    source = open_source(segmenter.recipe, args.images, args.split, {})[0]
    count = min(args.count, len(source))
    for index in random.Random(args.seed).sample(range(len(source)), count):
        sample = source[index]
        yield segmenter.segment(sample.image, sample.tags, name=sample.name), sample.mask


def untagged(segmenter: Segmenter, args: argparse.Namespace) -> Iterator[Made]:
    """Segment random images; the classifier chooses their classes."""
    paths = input_images(args.images)
    for path in random.Random(args.seed).sample(paths, min(args.count, len(paths))):
        yield segmenter.segment(read_image(path), name=path.stem), None


def panels(prediction: Prediction, truth: Mask | None, iou: float) -> list[Panel]:
    """Return the image, its mask and its true mask."""
    uncertainty = prediction.uncertainty.total if prediction.uncertainty else math.nan
    score = "" if math.isnan(iou) else f", overlap {100 * iou:.0f} %"
    drawn = [
        Panel(prediction.image, prediction.name, note="image"),
        Panel(
            draw_overlay(prediction.image, prediction.mask),
            f"uncertainty {uncertainty:.2f}{score}",
            mask_legend(prediction.mask, prediction.class_names),
            "no class",
        ),
    ]
    if truth is not None:
        legend = mask_legend(truth, prediction.class_names)
        drawn.append(Panel(draw_overlay(prediction.image, truth), "true mask", legend))
    return drawn


def main() -> None:
    """Choose, segment, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("images", type=Path, help="folder of images, with tags or without")
    parser.add_argument("--split", help="list or part of a tagged folder")
    parser.add_argument("--untagged", action="store_true", help="use no tags")
    parser.add_argument("--count", type=int, default=8, help="number of images")
    parser.add_argument("--seed", type=int, default=1, help="of the choice")
    parser.add_argument("--out", type=Path, help="JPEG file to write")
    args = parser.parse_args()
    segmenter = Segmenter.load(args.run)
    strips = []
    for prediction, truth in (untagged if args.untagged else tagged)(segmenter, args):
        iou = math.nan
        if truth is not None:
            scored = ScoredMask(prediction.name, truth, prediction.mask)
            iou = score_images([scored], len(segmenter.class_names) + 1).images[prediction.name]
        uncertainty = prediction.uncertainty.total if prediction.uncertainty else math.nan
        classes = ", ".join(prediction.classes) or "no class"
        score = "-" if math.isnan(iou) else f"{100 * iou:.0f} %"
        sys.stdout.write(f"| {prediction.name} | {classes} | {score} | {uncertainty:.2f} |\n")
        strips.append(draw_strip(panels(prediction, truth, iou)))
    if args.out is not None:
        stack_rows(strips).save(args.out, quality=82, optimize=True)


if __name__ == "__main__":
    main()
