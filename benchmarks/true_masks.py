"""Measure what a few true masks in training buy: tags alone, tags and masks, masks alone.

Each run was trained from tags. Four networks learn further for the same number of steps:

- `tags`: the run continued from its weights, tags alone;
- `tags + masks`: the same with `data.true_masks=train` on N images of the list `train`;
- `masks, warm`: `supervised` on these N masks alone, with the backbone of the run;
- `masks, imagenet`: the same with the ImageNet weights that the run had started from.

Masks are drawn anew for every run (seed: its position). The background score of CAM arms is chosen
on other images of `train`, and all arms are scored on `devval`. Finished arms are skipped, so
an interrupted call resumes with the next arm.

Run: python benchmarks/true_masks.py RUN ... --weights DIR --root DIR --out DIR
    [--masks 20] [--steps 300] [--share 0.25] [--weight 1] [--limit N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from row import add_entry, command, run_as_command
from tag2mask import plugins
from tag2mask.checkpoint import read_weights, save_weights
from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.data.loader import batches
from tag2mask.data.true_masks import open_training_images
from tag2mask.data.voc import read_list
from tag2mask.evaluation.confusion import Counts
from tag2mask.evaluation.mask_scores import count_mask, mean_iou
from tag2mask.evaluation.sources import spread_indices
from tag2mask.inference.candidate_settings import LEVELS, MaskMaker, MaskSetting
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_method
from tag2mask.training.optimizer import build_optimizer, set_learning_rates
from tag2mask.training.seeding import seed_all

ARMS = ("tags", "tags + masks", "masks, warm", "masks, imagenet")
RESULTS = "true_masks.json"
CLASS_SOURCES = ("classifier", "tags")
MIN_PER_CLASS = 2
"""Images that show each class among the drawn ones."""


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--weights", required=True, help="ImageNet weights of the runs")
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--out", type=Path, required=True, help="receives weights and results")
    parser.add_argument("--masks", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--limit", type=int, help="score at most this many images of each list")
    args = parser.parse_args()
    args.root, args.out = args.root.resolve(), args.out.resolve()
    return args


def draw_masks(root: Path, recipe: Recipe, count: int, seed: int) -> tuple[str, ...]:
    """Draw images of `train` with masks, so that each class is shown by a few of them."""
    source = plugins.load("data", "voc")(recipe.data.model_copy(update={"root": root}), "train.txt")
    rng = np.random.default_rng(seed)
    while True:
        chosen = np.sort(rng.choice(len(source), count, replace=False))
        if (source.tags[chosen].sum(axis=0) >= MIN_PER_CLASS).all():
            return tuple(source.names[index] for index in chosen)


def make_data(root: Path, names: Sequence[str], folder: Path) -> Path:
    """Make a copy of a VOC folder by links, with the masks of some images alone."""
    masks = folder / "SegmentationClass"
    masks.mkdir(parents=True, exist_ok=True)
    for entry in ("JPEGImages", "ImageSets", "tags.csv"):
        if not (folder / entry).exists():
            (folder / entry).symlink_to(root / entry)
    for name in names:
        if not (masks / f"{name}.png").exists():
            (masks / f"{name}.png").symlink_to(root / "SegmentationClass" / f"{name}.png")
    others = [name for name in read_list(root, "train") if name not in set(names)]
    (folder / "others.txt").write_text("\n".join(others) + "\n", encoding="utf-8")
    return folder


def arm_recipe(arm: str, trained: Recipe, data: Path, args: argparse.Namespace) -> Recipe:
    """Return the recipe of one arm."""
    raw = trained.plain()
    raw["data"] |= {"root": str(data), "true_mask_share": args.share}
    raw["data"]["true_masks"] = "score" if arm == "tags" else "train"
    raw["backbone"]["weights"] = args.weights
    raw["optim"] |= {"steps": args.steps, "warmup": 0.05}
    if arm.startswith("masks"):
        raw["method"] = {"name": "supervised"}
        raw["refiner"] = None
        raw["predict"] = {"long_side_px": 0}
    else:
        # The classifier is trained: all losses from the first step, at a third of the rates.
        raw["method"]["true_mask_weight"] = args.weight
        if "warmup" in raw["method"]:
            raw["method"] |= {"warmup_rule": "fixed", "warmup": 0}
        raw["optim"] |= {"lr": 2.0e-5, "head_lr": 2.0e-4}
    return parse_recipe(raw, arm)


def warm_method(arm: str, recipe: Recipe, weights: dict[str, torch.Tensor]) -> Method:
    """Build the network of an arm with the weights that it starts from."""
    method = build_method(recipe)
    if arm != "masks, imagenet":
        own = method.state_dict()
        method.load_state_dict(
            {name: value for name, value in weights.items() if name in own}, strict=False
        )
    return method


def train(method: Method, recipe: Recipe, seed: int) -> float:
    """Train a network; return the seconds."""
    images = open_training_images(recipe.data, learns_from_masks=method.reads_masks)
    optimizer = build_optimizer(method.train(), recipe.optim)
    loaded = batches(
        images.source, recipe.data, batch_size=recipe.optim.batch_size, seed=seed, workers=0,
        masks=images.reads_masks, favored=images.true_masks,
        favored_share=recipe.data.true_mask_share,
    )  # fmt: skip
    start = time.monotonic()
    for step in range(recipe.optim.steps):
        set_learning_rates(optimizer, recipe.optim, step)
        losses = method(next(loaded), step)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        if step % 25 == 0:
            shown = ", ".join(f"{name} {loss.item():.4f}" for name, loss in losses.items())
            print(f"  step {step}: {shown} ({time.monotonic() - start:.0f} s)", flush=True)
    loaded.close()
    return time.monotonic() - start


def count(segmenter: Segmenter, split: str, root: Path, limit: int | None) -> dict[str, Counts]:
    """Count pixels per class source and background score, (S, C, C + 1), on one list."""
    data = segmenter.recipe.data.model_copy(update={"root": root, "true_masks": "score"})
    source = plugins.load("data", "voc")(data, split)
    refiner = segmenter.recipe.refiner
    settings = [MaskSetting(refiner, False, "fixed", level) for level in LEVELS]
    if segmenter.protocol.name == "decoder":
        settings = [MaskSetting(None, False, None)]
    maker, num_classes = MaskMaker(segmenter, settings), len(segmenter.class_names) + 1
    total: dict[str, Any] = dict.fromkeys(CLASS_SOURCES, 0)
    for index in spread_indices(len(source), limit):
        sample = source[index]
        output = segmenter.run_network(sample.image, None, sample.name)
        known: dict[tuple[int, ...], Counts] = {}
        for class_source in CLASS_SOURCES:
            selected = segmenter.select_classes(output, sample.tags, class_source)
            if selected not in known:
                masks = sorted(maker.masks(sample, output, selected), key=lambda made: made[0])
                known[selected] = np.array(
                    [count_mask(mask, sample.mask, num_classes) for _, mask in masks]
                )
            total[class_source] = total[class_source] + known[selected]
    return total


def score(segmenter: Segmenter, data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Score a network on `devval`, at the background score that other images of `train` choose."""
    reported = count(segmenter, "devval.txt", args.root, args.limit)
    chosen = reported
    if len(next(iter(reported.values()))) > 1:
        limit = min(40, args.limit or 40)
        chosen = count(segmenter, str(data / "others.txt"), args.root, limit)
    scores = {}
    for class_source, counts in reported.items():
        best = int(np.argmax([mean_iou(one) for one in chosen[class_source]]))
        level = LEVELS[best] if len(counts) > 1 else None
        scores[class_source] = {"miou": round(mean_iou(counts[best]), 4), "background": level}
    return scores


def main() -> None:
    """Train and score every arm of every run that has no result yet; print the means."""
    args = parse_arguments()
    results = args.out / RESULTS
    args.out.mkdir(parents=True, exist_ok=True)
    for position, run in enumerate(args.runs, start=1):
        weights, trained = read_weights(run / "weights" / "last.safetensors")
        weights = {name: value.float() if value.is_floating_point() else value
                   for name, value in weights.items()}  # fmt: skip
        names = draw_masks(args.root, trained, args.masks, position)
        data = make_data(args.root, names, args.out / f"data_{position}")
        for arm in ARMS:
            entry = f"{arm}, seed {position}"
            done = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
            if entry in done:
                continue
            print(entry, flush=True)
            recipe = arm_recipe(arm, trained, data, args)
            seed_all(position, 0)
            method = warm_method(arm, recipe, weights)
            seconds = train(method, recipe, position)
            folder = args.out / entry.replace(", ", "_").replace(" ", "_")
            save_weights(folder / "weights" / "last.safetensors", method.state_dict(), recipe)
            scores = score(Segmenter(method, recipe), data, args)
            print(f"  {scores}", flush=True)
            add_entry(
                results,
                entry,
                {
                    "command": command(), "threads": torch.get_num_threads(),
                    "cores": os.cpu_count(), "run": run.name, "steps": args.steps,
                    "seconds": round(seconds), "images": list(names), "scores": scores,
                },
            )  # fmt: skip
    summarize(results)


def summarize(results: Path) -> None:
    """Print mean and spread (largest minus smallest) of every arm over the runs."""
    entries = json.loads(results.read_text(encoding="utf-8"))
    for class_source in CLASS_SOURCES:
        for arm in ARMS:
            values = [
                entry["scores"][class_source]["miou"]
                for name, entry in entries.items()
                if name.startswith(f"{arm}, seed")
            ]
            if values:
                mean, spread = statistics.mean(values), max(values) - min(values)
                print(
                    f"devval, classes from {class_source:10s} {arm:16s} mIoU {mean:.4f} "
                    f"spread {spread:.4f} n {len(values)}"
                )


if __name__ == "__main__":
    run_as_command(main)
