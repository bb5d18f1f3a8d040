"""Swap tags at random and count how many swaps `check RUN` ranks first.

Run: python benchmarks/tag_errors.py RUN --root DIR --list train_aug --json FILE
    [--limit N] [--share 0.05] [--seeds 3] [--pretrained] [--entry NAME]

The backbone of a run trained on the true tags, so it has not memorized the swapped ones: its
result is an upper bound. With --pretrained the backbone has its pretrained weights only, and has
never read a tag of these images: a lower bound.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from row import add_entry, command, run_as_command
from tag2mask import plugins
from tag2mask.data.base import Source
from tag2mask.evaluation.metrics import mean_average_precision
from tag2mask.evaluation.sources import spread_indices
from tag2mask.evaluation.tag_errors import Tags, cross_fitted_probs, rank_images
from tag2mask.inference.image_features import image_features
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method

FIRST = 0.1
"""Share of the images that a user would look through."""


def swap_tags(tags: Tags, share: float, seed: int) -> tuple[Tags, set[int]]:
    """Replace a share of all tags by another class that the image does not have.

    Returns:
        The swapped (N, F) tags, and the images that have a swapped tag.
    """
    random = np.random.default_rng(seed)
    swapped = tags.copy()
    images, classes = np.nonzero(tags)
    chosen = random.choice(len(images), round(share * len(images)), replace=False)
    changed = set()
    for image, old in zip(images[chosen], classes[chosen], strict=True):
        others = np.flatnonzero(tags[image] + swapped[image] == 0)
        if others.size:
            swapped[image, old], swapped[image, random.choice(others)] = 0, 1
            changed.add(int(image))
    return swapped, changed


def main() -> None:
    """Print the share of swapped images in the first tenth, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--list", default="train_aug", help="list of images")
    parser.add_argument("--limit", type=int, help="use at most this many images")
    parser.add_argument("--share", type=float, default=0.05, help="share of tags to swap")
    parser.add_argument("--seeds", type=int, default=3, help="number of random swaps")
    parser.add_argument("--pretrained", action="store_true", help="without the run's own weights")
    parser.add_argument("--json", type=Path, required=True, help="file; receives one entry")
    parser.add_argument("--entry", help="name of the entry; default: run and backbone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = Segmenter.load(args.run, "last")
    if args.pretrained:
        segmenter = Segmenter(build_method(segmenter.recipe), segmenter.recipe)
    data = segmenter.recipe.data.model_copy(update={"root": args.root, "labels": None})
    source: Source = plugins.load("data", data.name)(data, f"{args.list}.txt")
    source.reads_masks = False
    indices = list(spread_indices(len(source), args.limit))
    features = torch.stack([image_features(segmenter, source[i].image) for i in indices])
    names, tags = [source.names[i] for i in indices], source.tags[indices]
    results = []
    for seed in range(args.seeds):
        swapped, changed = swap_tags(tags, args.share, seed)
        probs = cross_fitted_probs(features, swapped)
        ranked = rank_images(names, source.class_names, probs, swapped)
        first = {image.name for image in ranked[: round(FIRST * len(ranked))]}
        flagged = {image.name for image in ranked if image.wrong or image.missing}
        wrong = {names[i] for i in changed}
        result = {
            "images": len(names),
            "swapped": len(wrong),
            "found_in_first_tenth": round(len(wrong & first) / len(wrong), 4),
            "flagged": len(flagged),
            "found_in_flagged": round(len(wrong & flagged) / len(wrong), 4),
            "tag_map": round(mean_average_precision(probs, tags), 4),
        }
        results.append(result)
        print(f"seed {seed}: {result}")
    mean = float(np.mean([result["found_in_first_tenth"] for result in results]))
    print(f"swapped images in the first {FIRST:.0%}: {mean:.3f} (mean of {args.seeds} seeds)")
    backbone = "pretrained" if args.pretrained else "of the run"
    entry = args.entry or f"{args.run.resolve().name}, backbone {backbone}"
    record = {"command": command(), "list": args.list, "share": args.share, "limit": args.limit}
    add_entry(args.json, entry, {**record, "found": round(mean, 4), "seeds": results})


if __name__ == "__main__":
    run_as_command(main)
