"""Quality of masks on images with true masks: evidence, refined, propagated, decoder; both gates.

Each row's score of background is chosen on one list and its mIoU reported on another; nothing else
is fitted to a mask. Every image is looked at once: all thresholds are judged on the same evidence.
Methods that work while labeling (`--method advcam` on a run of cam) look at images with their
tags, so that there is the class source `tags` alone. A list with a folder in its name is a file.

Run: python benchmarks/seed_quality.py RUN --root DIR [--lists devval train] [--json FILE]
    [--refiners par pamr '{name: dense_crf, unary: label}'] [--method NAME [KEY=VALUE ...]]
    [--long-side 256] [--entry NAME]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor

from row import add_entry, command, run_as_command
from tag2mask import plugins
from tag2mask.config.recipe import parse_recipe
from tag2mask.config.schema import MethodConfig, PredictConfig
from tag2mask.data.base import Source
from tag2mask.errors import RecipeError
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.evaluation.sweep import ThresholdSweep
from tag2mask.functional.cam import upsample
from tag2mask.functional.precision import label_autocast
from tag2mask.functional.pseudo_label import with_constant_background
from tag2mask.inference.multi_scale import (
    NetworkOutput,
    predict_multi_scale,
    resolve_inference_config,
    select_classes,
)
from tag2mask.inference.postprocessing import (
    half_size,
    postprocess,
    resized_by_corners,
    select_maps,
)
from tag2mask.inference.segmenter import Segmenter, Which, final_crf
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_refiner
from tag2mask.refiners.base import Refiner
from tag2mask.types import BACKGROUND, ClassSource, Mask

Floats = npt.NDArray[np.float32]
Refiners = Mapping[str, Refiner]
GATES: tuple[ClassSource, ...] = ("tags", "classifier")
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, *np.arange(0.10, 0.81, 0.05).round(2).tolist())
"""Fine where evidence is sharp: beside a narrow peak all else is weak."""
COARSE = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""For refiners at the image's own size, which take tenths of a second for each."""
NO_THRESHOLD = -1.0
"""Stands for it in rows that are cut without."""


class Plan(NamedTuple):
    """How the masks of a row are cut."""

    propagated: bool
    refiner: Refiner | None
    thresholds: tuple[float, ...]


class Rows:
    """Confusion matrices of one list: those of the evidence itself, and of every other row."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.raw = ThresholdSweep(THRESHOLDS, num_classes)
        self.cuts: dict[str, dict[float, ConfusionMatrix]] = {}

    def add(self, name: str, cuts: Mapping[float, Mask], truth: Mask) -> None:
        """Judge a row's masks of one image."""
        row = self.cuts.setdefault(name, {})
        for threshold, mask in cuts.items():
            row.setdefault(threshold, ConfusionMatrix(self.num_classes)).update(truth, mask)


def cam_settings(segmenter: Segmenter) -> PredictConfig:
    """The run's test-time settings, by the protocol that cuts masks from evidence."""
    predict = segmenter.recipe.predict.model_copy(update={"protocol": "rml", "propagate": True})
    return resolve_inference_config(predict, segmenter.method)


def build_refiners(segmenter: Segmenter, specs: Sequence[str]) -> Refiners:
    """Refiners by name: those of `specs` (names, or settings in YAML), else the recipe's own."""
    refiner = build_refiner(segmenter.recipe)
    found = {refiner.config.name: refiner} if refiner and not specs else {}
    for spec in specs:
        settings = read_value(spec, f"refiner '{spec}'")
        settings = {"name": settings} if isinstance(settings, str) else settings
        recipe = parse_recipe({**segmenter.recipe.plain(), "refiner": settings}, f"refiner {spec}")
        named = build_refiner(recipe)
        if named is None:
            raise RecipeError(f"refiner '{spec}': names none")
        found[spec] = named
    return found


def read_value(text: str, where: str) -> object:
    """Read a value that was typed in YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"{where}: is no YAML") from None


def read_setting(text: str, where: str) -> tuple[str, object]:
    """Read KEY=VALUE, the value in YAML."""
    key, sign, value = text.partition("=")
    if not sign:
        raise RecipeError(f"{where}: '{text}' is not KEY=VALUE")
    return key, read_value(value, f"{where}: '{text}'")


def plans(seen: NetworkOutput, refiners: Refiners) -> dict[str, Plan]:
    """All rows but the evidence itself; propagated maps meet the first refiner alone."""
    found = {f"cam + {name}": plan_of(refiner) for name, refiner in refiners.items()}
    if seen.affinity is None and seen.propagation is None:
        return found
    found["propagated"] = Plan(True, None, THRESHOLDS)
    for name, refiner in list(refiners.items())[:1]:
        found[f"propagated + {name}"] = plan_of(refiner)._replace(propagated=True)
    return found


def plan_of(refiner: Refiner) -> Plan:
    """How evidence is cut through a refiner."""
    return Plan(False, refiner, COARSE if refiner.at_full_size else THRESHOLDS)


def gated(cam: Tensor, keys: tuple[int, ...], size: torch.Size) -> Floats:
    """(F, H, W) evidence at the image's size, 0 for classes not chosen."""
    kept = torch.zeros_like(cam)
    kept[:, list(keys)] = cam[:, list(keys)]
    score: Floats = upsample(kept, size)[0].numpy()
    return score


def cut(image: Tensor, seen: NetworkOutput, keys: tuple[int, ...], plan: Plan) -> dict[float, Mask]:
    """Cut a row's masks of one image, all thresholds as stacks over it."""
    height, width = image.shape[-2:]
    if not keys:
        return dict.fromkeys(plan.thresholds, np.full((height, width), BACKGROUND, dtype=np.uint8))
    refiner = plan.refiner
    size = (height, width)
    if refiner is not None and not refiner.at_full_size:
        size = half_size((seen.cam.shape[-2], seen.cam.shape[-1]))
    if plan.propagated:
        stacks = spread_stacks(seen, keys, plan, size)
    else:
        stacks = with_constant_background(
            resized_by_corners(seen.cam[:, list(keys)], size), plan.thresholds
        )
    if refiner is not None:
        stacks = refiner(upsample(image.float(), size), stacks)
    stacks = upsample(stacks.flatten(1, 2), (height, width)).unflatten(1, stacks.shape[1:3])
    values = torch.tensor([BACKGROUND, *(key + 1 for key in keys)], dtype=torch.uint8)
    winners = values[stacks.argmax(dim=2)[0]].numpy()
    return dict(zip(plan.thresholds, winners, strict=True))


def spread_stacks(
    seen: NetworkOutput, keys: tuple[int, ...], plan: Plan, size: tuple[int, int]
) -> Tensor:
    """(1, S, 1 + K, *size) propagated probabilities, one stack per score of background.

    Walks of IRN give evidence that is cut afterwards; those of PSA have a background of their own,
    and all their stacks are the same.
    """
    walks, thresholds = seen.affinity is None, plan.thresholds
    resize = upsample if plan.refiner is None else resized_by_corners
    drafts = [select_maps(seen, keys, level) for level in (thresholds[:1] if walks else thresholds)]
    maps = [resize(selected_maps.maps, size) for selected_maps in drafts]
    if drafts[0].kind == "evidence":
        return with_constant_background(maps[0], thresholds)
    stacks = torch.stack(maps, dim=1).expand(-1, len(thresholds), -1, -1, -1)
    return stacks / stacks.sum(dim=2, keepdim=True).clamp_min(1e-8)


@torch.no_grad()
def validation_loop(
    segmenter: Segmenter, source: Source, refiners: Refiners, limit: int | None = None
) -> dict[ClassSource, Rows]:
    """Look once at every image of a list, or at `limit` of them spread evenly; both gates."""
    method = segmenter.method
    labels = type(method).look is not Method.look  # works while labeling
    gates = GATES[:1] if labels else GATES
    rows: dict[ClassSource, Rows] = {gate: Rows(len(source.class_names) + 1) for gate in gates}
    predict = cam_settings(segmenter)
    method.eval()  # from scratch on, BatchNorm would read each image's own statistics
    count = len(source) if limit is None else min(limit, len(source))
    for position, index in enumerate(np.linspace(0, len(source) - 1, count).astype(int)):
        sample = source[int(index)]
        assert sample.mask is not None
        image = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None]
        tags = torch.from_numpy(sample.tags.astype(np.float32))[None]
        with label_autocast("auto", "cpu"), segmenter.with_dataset(source):
            seen = predict_multi_scale(
                method, image, predict, tags if labels else None, sample.name
            )
        made: dict[tuple[int, ...], dict[str, dict[float, Mask]]] = {}
        for gate, kept in rows.items():
            keys = select_classes(seen.probs, tags, predict, gate)
            if keys not in made:  # mostly both gates choose the same classes
                made[keys] = {
                    name: cut(image, seen, keys, plan)
                    for name, plan in plans(seen, refiners).items()
                }
            kept.raw.update(gated(seen.cam, keys, image.shape[-2:]), sample.mask)
            for name, cuts in made[keys].items():
                kept.add(name, cuts, sample.mask)
        if segmenter.config.protocol == "afa":
            judge_decoder(segmenter, rows, image, tags, sample.mask)
        if position % 50 == 49:
            print(f"  {position + 1} of {count} images", file=sys.stderr, flush=True)
    return rows


def judge_decoder(
    segmenter: Segmenter, rows: Mapping[ClassSource, Rows], image: Tensor, tags: Tensor, truth: Mask
) -> None:
    """Judge the decoder's masks of one image, without and with the CRF that ends its protocol."""
    with label_autocast("auto", "cpu"):
        seen = predict_multi_scale(segmenter.method, image, segmenter.config)
    crfs = {"decoder": None, "decoder + final CRF": final_crf()}
    for gate, kept in rows.items():
        keys = select_classes(seen.probs, tags, segmenter.config, gate)
        selected_maps = select_maps(seen, keys, segmenter.config.background_score)
        for name, crf in crfs.items():
            mask = postprocess(image, selected_maps, segmenter.config, crf=crf).mask.numpy()
            kept.add(name, {NO_THRESHOLD: mask}, truth)


def summarise(chosen: Rows, reported: Rows) -> dict[str, dict[str, object]]:
    """Row name -> threshold from the first list, mIoU and IoU per class on the second."""
    raw_threshold = chosen.raw.best()[0]
    found = {"cam": (raw_threshold, reported.raw.report_at(raw_threshold))}
    for name, cuts in chosen.cuts.items():
        best = max(cuts, key=lambda level: cuts[level].miou())
        found[name] = (best, reported.cuts[name][best])
    return {
        name: {
            "threshold": None if threshold == NO_THRESHOLD else threshold,
            "miou": round(matrix.miou(), 4),
            "iou": [round(value, 4) for value in matrix.iou().tolist()],
        }
        for name, (threshold, matrix) in found.items()
    }


def open_run(
    run: Path, weights: Which, method: MethodConfig | None, long_side_px: int | None
) -> Segmenter:
    """Load a run, with another method and size where they are asked for."""
    segmenter = Segmenter.load(run, weights, method=method)
    if long_side_px is None:
        return segmenter
    predict = segmenter.recipe.predict.model_copy(update={"long_side_px": long_side_px})
    recipe = segmenter.recipe.model_copy(update={"predict": predict})
    return Segmenter(segmenter.method, recipe, origin=segmenter.origin)


def method_config(settings: Mapping[str, object], where: str) -> MethodConfig:
    """Check the settings of a method as a recipe's are, by a recipe of which nothing else counts.

    Raises:
        RecipeError: One line per fault.
    """
    rest = {"data": {"name": "synthetic"}, "backbone": {"name": "tiny"}}
    return parse_recipe({**rest, "method": dict(settings)}, where).method


def named_method(words: Sequence[str] | None) -> MethodConfig | None:
    """NAME KEY=VALUE ... as settings of a method, the values in YAML."""
    if not words:
        return None
    name, *pairs = words
    settings = dict(read_setting(pair, "--method") for pair in pairs)
    return method_config({"name": name, **settings}, "--method")


def main() -> None:
    """Print a table per gate and direction, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--lists", nargs=2, default=["devval", "train"], metavar="LIST")
    parser.add_argument("--limit", type=int, help="at most this many images of each list")
    parser.add_argument("--weights", choices=["best", "last"], default="last")
    parser.add_argument(
        "--refiners", nargs="+", default=[], metavar="NAME", help="names or settings in YAML"
    )
    parser.add_argument("--method", nargs="+", help="another method for the weights, KEY=VALUE")
    parser.add_argument("--long-side", type=int, help="resize images to it, in place of the run's")
    parser.add_argument("--json", type=Path, help="results file that gets an entry")
    parser.add_argument("--entry", help="name of the entry; default: the run's name")
    args = parser.parse_args()
    segmenter = open_run(args.run, args.weights, named_method(args.method), args.long_side)
    data = segmenter.recipe.data.model_copy(update={"root": args.root})
    kind = plugins.load("data", data.name)
    sources = {name: kind(data, name + ".txt") for name in args.lists}
    refiners = build_refiners(segmenter, args.refiners)
    judged = {
        name: validation_loop(segmenter, source, refiners, args.limit)
        for name, source in sources.items()
    }
    tables = []
    for gate in judged[args.lists[0]]:
        for chosen, reported in (args.lists, args.lists[::-1]):
            rows = summarise(judged[chosen][gate], judged[reported][gate])
            tables.append(
                {"class_source": gate, "chosen_on": chosen, "reported_on": reported, "rows": rows}
            )
            print(f"gate {gate}, thresholds chosen on {chosen}, reported on {reported}")
            for name, row in rows.items():
                at = f"threshold {row['threshold']!s:5s}"
                print(f"  {name:22s} {at} mIoU {row['miou']:.4f}  {row['iou']}")
    if args.json:
        record = {
            "command": command(),
            "images": {name: len(source) for name, source in sources.items()},
            "limit": args.limit,
            "scales": cam_settings(segmenter).scales,
            "flip": cam_settings(segmenter).flip,
            "refiners": {
                name: refiner.config.model_dump(mode="json") for name, refiner in refiners.items()
            },
            "tables": tables,
        }
        add_entry(args.json, args.entry or args.run.resolve().name, record)


if __name__ == "__main__":
    run_as_command(main)
