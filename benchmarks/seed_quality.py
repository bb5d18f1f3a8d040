"""Score masks of a run against true masks: CAM, refined, propagated, and those of its own protocol.

The background threshold of each row is chosen on one list and its mIoU is reported on another;
nothing else is fitted to true masks. The network runs once per image, and all thresholds are scored
on that output. A method that works while labeling (`--method advcam` on a run of `cam`) reads the
tags, so its only class source is `tags`. A list name with a folder in it is a file.

Run: python benchmarks/seed_quality.py RUN --root DIR [--lists devval train] [--json FILE]
    [--refiners par pamr '{name: dense_crf, unary: label}'] [--method NAME [KEY=VALUE ...]]
    [--long-side 256] [--entry NAME] [--device cuda]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from row import add_entry, command, run_as_command
from tag2mask import plugins
from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.config.schema import MethodConfig, PredictConfig
from tag2mask.data.base import Source
from tag2mask.errors import RecipeError
from tag2mask.evaluation.confusion import MASK_VALUES, ConfusionMatrix, Counts
from tag2mask.evaluation.sweep import ThresholdSweep
from tag2mask.functional.cam import upsample
from tag2mask.functional.precision import label_autocast
from tag2mask.functional.pseudo_label import with_constant_background
from tag2mask.inference.multi_scale import (
    predict_multi_scale,
    protocol_of,
    resolve_inference_config,
    select_classes,
)
from tag2mask.inference.postprocessing import PostProcessor, half_size, select_maps
from tag2mask.inference.run import Which
from tag2mask.inference.segmenter import Segmenter, build_final_crf, image_tensor
from tag2mask.methods.build import build_refiner
from tag2mask.methods.protocol import MultiScaleCam, MultiScaleDecoder, NetworkOutput
from tag2mask.refiners.base import Refiner
from tag2mask.types import BACKGROUND, ClassSource, Mask

Floats = npt.NDArray[np.float32]
Refiners = Mapping[str, Refiner]
Indices = tuple[int, ...]
CLASS_SOURCES: tuple[ClassSource, ...] = ("tags", "classifier")
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, *np.arange(0.10, 0.81, 0.05).round(2).tolist())
"""Fine steps near 0: in a CAM with a narrow peak, all other values are small."""
COARSE_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""For refiners at the image's size, which take tenths of a second per threshold."""
DECODER = MultiScaleDecoder.name
"""First word of the rows whose masks come from a decoder."""
NO_THRESHOLD = -1.0
"""Key of masks that need no threshold."""


class MaskPlan(NamedTuple):
    """How the masks of one row are made."""

    propagated: bool
    refiner: Refiner | None
    thresholds: tuple[float, ...]
    crf: Refiner | None = None
    """Finishes the refined maps at the image's size."""


class ListScores:
    """Confusion matrices of one list: of the CAM itself, and of every other row."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.cam = ThresholdSweep(THRESHOLDS, num_classes)
        self.rows: dict[str, dict[float, ConfusionMatrix]] = {}

    def add(self, name: str, counts: Mapping[float, Counts]) -> None:
        """Add the pixel counts of one image, by threshold, to a row."""
        row = self.rows.setdefault(name, {})
        for threshold, pairs in counts.items():
            row.setdefault(threshold, ConfusionMatrix(self.num_classes)).add_pairs(pairs)


def cam_config(segmenter: Segmenter) -> PredictConfig:
    """Return the run's test-time settings with masks from the CAM, and propagation if possible."""
    predict = segmenter.recipe.predict.model_copy(update={"protocol": "cam", "propagate": True})
    return resolve_inference_config(predict, segmenter.method)


def build_refiners(segmenter: Segmenter, specs: Sequence[str]) -> Refiners:
    """Build refiners by name: those of `specs` (names, or settings in YAML), or the recipe's."""
    refiner = build_refiner(segmenter.recipe)
    refiners = {refiner.config.name: refiner} if refiner and not specs else {}
    for spec in specs:
        settings = read_value(spec, f"refiner '{spec}'")
        settings = {"name": settings} if isinstance(settings, str) else settings
        recipe = parse_recipe({**segmenter.recipe.plain(), "refiner": settings}, f"refiner {spec}")
        named = build_refiner(recipe)
        if named is None:
            raise RecipeError(f"refiner '{spec}': give a name, or settings with a name")
        refiners[spec] = named
    return refiners


def read_value(text: str, where: str) -> object:
    """Parse a value in YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"{where}: is not valid YAML") from None


def read_setting(text: str, where: str) -> tuple[str, object]:
    """Parse KEY=VALUE, with the value in YAML."""
    key, sign, value = text.partition("=")
    if not sign:
        raise RecipeError(f"{where}: '{text}' is not KEY=VALUE")
    return key, read_value(value, f"{where}: '{text}'")


def mask_plans(output: NetworkOutput, refiners: Refiners) -> dict[str, MaskPlan]:
    """Plan all rows except the CAM itself; only the first refiner refines propagated maps.

    The final CRF follows the first refiner that works below the image's size, as RML and AFA report
    it (Specification R18 (5)).
    """
    plans = {f"cam + {name}": refined_plan(refiner) for name, refiner in refiners.items()}
    small = [name for name, refiner in refiners.items() if not refiner.at_full_size]
    for name in small[:1]:
        plans[f"cam + {name} + final CRF"] = MaskPlan(
            False, refiners[name], COARSE_THRESHOLDS, build_final_crf(MultiScaleCam())
        )
    if output.affinity is None and output.propagation is None:
        return plans
    plans["propagated"] = MaskPlan(True, None, THRESHOLDS)
    for name, refiner in list(refiners.items())[:1]:
        plans[f"propagated + {name}"] = refined_plan(refiner)._replace(propagated=True)
    return plans


def refined_plan(refiner: Refiner) -> MaskPlan:
    """Plan masks from the CAM and a refiner."""
    return MaskPlan(False, refiner, COARSE_THRESHOLDS if refiner.at_full_size else THRESHOLDS)


def selected_cam(cam: Tensor, class_indices: Indices, size: torch.Size) -> Floats:
    """(F, H, W) CAM at the image's size, 0 for classes that are not selected."""
    selected = torch.zeros_like(cam)
    selected[:, list(class_indices)] = cam[:, list(class_indices)]
    resized: Floats = upsample(selected, size)[0].cpu().numpy()
    return resized


def make_masks(
    image: Tensor, output: NetworkOutput, class_indices: Indices, plan: MaskPlan
) -> Tensor:
    """Make the masks of one image for a row: (S, H, W) uint8, one per threshold, in one pass."""
    height, width = image.shape[-2:]
    if not class_indices:
        return image.new_full((len(plan.thresholds), height, width), BACKGROUND)
    refiner = plan.refiner
    size = (height, width)
    if refiner is not None and not refiner.at_full_size:
        size = half_size((output.cam.shape[-2], output.cam.shape[-1]))
    if plan.propagated:
        probs = propagated_probs(output, class_indices, plan, size)
    else:
        cam = upsample(output.cam[:, list(class_indices)], size)
        probs = with_constant_background(cam, plan.thresholds)
    if refiner is not None:
        probs = refiner(upsample(image.float(), size), probs)
    probs = upsample(probs.flatten(1, 2), (height, width)).unflatten(1, probs.shape[1:3])
    if plan.crf is not None:
        probs = plan.crf(image, probs)
    values = torch.tensor([BACKGROUND, *(index + 1 for index in class_indices)], dtype=torch.uint8)
    return values.to(probs.device)[probs.argmax(dim=2)[0]]


def count_pairs(masks: Tensor, truth: Mask) -> list[Counts]:
    """Count the pixels of (S, H, W) masks by true and predicted value: S times (256, 256)."""
    pairs = torch.from_numpy(truth).to(masks.device).long() * MASK_VALUES + masks
    pairs += torch.arange(len(masks), device=masks.device).view(-1, 1, 1) * MASK_VALUES**2
    counts = torch.bincount(pairs.flatten(), minlength=len(masks) * MASK_VALUES**2)
    return list(counts.view(-1, MASK_VALUES, MASK_VALUES).cpu().numpy())


def propagated_probs(
    output: NetworkOutput, class_indices: Indices, plan: MaskPlan, size: tuple[int, int]
) -> Tensor:
    """(1, S, 1 + K, *size) propagated probabilities, one set per threshold.

    IRN propagates a CAM, which meets the thresholds afterwards. PSA propagates a background of its
    own, so all sets are the same.
    """
    thresholds = plan.thresholds
    resize = upsample if plan.refiner is None else resize_aligned
    backgrounds = thresholds[:1] if output.affinity is None else thresholds
    selected = [select_maps(output, class_indices, background) for background in backgrounds]
    maps = [resize(one.maps, size) for one in selected]
    if selected[0].kind == "cam":
        return with_constant_background(maps[0], thresholds)
    probs = torch.stack(maps, dim=1).expand(-1, len(thresholds), -1, -1, -1)
    return probs / probs.sum(dim=2, keepdim=True).clamp_min(1e-8)


def resize_aligned(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, K, h, w) propagated maps with aligned corners, as inference does for refiners."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


@torch.no_grad()
def score_list(
    segmenter: Segmenter, source: Source, refiners: Refiners, limit: int | None = None
) -> dict[ClassSource, ListScores]:
    """Score the images of a list, or `limit` of them spread evenly, by class source."""
    method = segmenter.method
    works_while_labeling = method.works_while_labeling
    class_sources = CLASS_SOURCES[:1] if works_while_labeling else CLASS_SOURCES
    scores = {name: ListScores(len(source.class_names) + 1) for name in class_sources}
    config = cam_config(segmenter)
    protocol = protocol_of(config, method)
    method.eval()  # in training mode, BatchNorm would use the statistics of each image
    count = len(source) if limit is None else min(limit, len(source))
    for position, index in enumerate(np.linspace(0, len(source) - 1, count).astype(int)):
        sample = source[int(index)]
        assert sample.mask is not None
        image = image_tensor(sample.image).to(segmenter.device)
        tags = torch.from_numpy(sample.tags.astype(np.float32))[None].to(segmenter.device)
        with label_autocast("auto", image.device.type), segmenter.with_dataset(source):
            output = predict_multi_scale(
                method, image, config, tags if works_while_labeling else None, sample.name
            )
        counts: dict[Indices, dict[str, dict[float, Counts]]] = {}
        for class_source, scored in scores.items():
            indices = select_classes(output.probs, tags, config, protocol, class_source)
            if indices not in counts:  # both class sources mostly select the same classes
                counts[indices] = count_rows(image, output, indices, refiners, sample.mask)
            scored.cam.update(selected_cam(output.cam, indices, image.shape[-2:]), sample.mask)
            for name, by_threshold in counts[indices].items():
                scored.add(name, by_threshold)
        if segmenter.protocol.name != MultiScaleCam.name:
            score_own_protocol(segmenter, scores, image, tags, sample.mask)
        if position % 50 == 49:
            print(f"  {position + 1} of {count} images", file=sys.stderr, flush=True)
    return scores


def count_rows(
    image: Tensor, output: NetworkOutput, class_indices: Indices, refiners: Refiners, truth: Mask
) -> dict[str, dict[float, Counts]]:
    """Count the pixels of one image's masks, by row and threshold."""
    rows = {}
    for name, plan in mask_plans(output, refiners).items():
        counts = count_pairs(make_masks(image, output, class_indices, plan), truth)
        rows[name] = dict(zip(plan.thresholds, counts, strict=True))
    return rows


def score_own_protocol(
    segmenter: Segmenter,
    scores: Mapping[ClassSource, ListScores],
    image: Tensor,
    tags: Tensor,
    truth: Mask,
) -> None:
    """Score the masks of the run's own protocol for one image, without and with its final CRF.

    AFA's protocol makes them from the decoder, that of 1Stage from shares of classes and
    background. Neither needs a threshold.
    """
    config = segmenter.config
    with label_autocast("auto", image.device.type):
        output = predict_multi_scale(segmenter.method, image, config)
    name = segmenter.protocol.name
    crfs = {name: None, f"{name} + final CRF": build_final_crf(segmenter.protocol)}
    for class_source, scored in scores.items():
        indices = select_classes(output.probs, tags, config, segmenter.protocol, class_source)
        selected = select_maps(output, indices, config.background_score)
        for row, crf in crfs.items():
            mask = PostProcessor(config, None, crf)(image, selected).mask
            scored.add(row, {NO_THRESHOLD: count_pairs(mask[None], truth)[0]})


def summarize(chosen: ListScores, reported: ListScores) -> dict[str, dict[str, Any]]:
    """Map each row to its threshold from the first list, and mIoU and IoUs on the second."""
    cam_threshold = chosen.cam.best()[0]
    best = {"cam": (cam_threshold, reported.cam.report_at(cam_threshold))}
    for name, matrices in chosen.rows.items():
        threshold = max(matrices, key=lambda level: matrices[level].miou())
        best[name] = (threshold, reported.rows[name][threshold])
    return {
        name: {
            "threshold": None if threshold == NO_THRESHOLD else threshold,
            "miou": round(matrix.miou(), 4),
            "iou": [round(value, 4) for value in matrix.iou().tolist()],
        }
        for name, (threshold, matrix) in best.items()
    }


def open_run(
    run: Path,
    weights: Which,
    method: MethodConfig | None,
    long_side_px: int | None,
    device: str = "auto",
) -> Segmenter:
    """Load a run, with another method or image size if given."""

    def configure(trained: Recipe) -> Recipe:
        recipe = trained if method is None else trained.model_copy(update={"method": method})
        if long_side_px is None:
            return recipe
        predict = recipe.predict.model_copy(update={"long_side_px": long_side_px})
        return recipe.model_copy(update={"predict": predict})

    return Segmenter.load(run, weights, device=device, configure=configure)


def method_config(settings: Mapping[str, object], where: str) -> MethodConfig:
    """Check the settings of a method as part of a recipe whose other sections do not matter.

    Raises:
        RecipeError: One line per mistake.
    """
    others = {"data": {"name": "synthetic"}, "backbone": {"name": "tiny"}}
    return parse_recipe({**others, "method": dict(settings)}, where).method


def named_method(words: Sequence[str] | None) -> MethodConfig | None:
    """Parse NAME KEY=VALUE ... to the settings of a method, with the values in YAML."""
    if not words:
        return None
    name, *pairs = words
    settings = dict(read_setting(pair, "--method") for pair in pairs)
    return method_config({"name": name, **settings}, "--method")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--lists", nargs=2, default=["devval", "train"], metavar="LIST")
    parser.add_argument("--limit", type=int, help="use at most this many images of each list")
    parser.add_argument("--weights", choices=["best", "last"], default="last")
    parser.add_argument(
        "--refiners", nargs="+", default=[], metavar="NAME", help="names, or settings in YAML"
    )
    parser.add_argument(
        "--method", nargs="+", help="another method that reads the weights, then KEY=VALUE ..."
    )
    parser.add_argument("--long-side", type=int, help="resize images to this instead of the run's")
    parser.add_argument(
        "--device", default="auto", help="cpu or cuda; auto: the GPU if there is one"
    )
    parser.add_argument("--json", type=Path, help="results file; receives one entry")
    parser.add_argument("--entry", help="name of the entry; default: the run's name")
    return parser.parse_args()


def main() -> None:
    """Print a table per class source and direction, and write them as JSON."""
    args = parse_arguments()
    segmenter = open_run(
        args.run, args.weights, named_method(args.method), args.long_side, args.device
    )
    data = segmenter.recipe.data.model_copy(update={"root": args.root})
    kind = plugins.load("data", data.name)
    sources = {name: kind(data, name + ".txt") for name in args.lists}
    refiners = build_refiners(segmenter, args.refiners)
    scores = {
        name: score_list(segmenter, source, refiners, args.limit)
        for name, source in sources.items()
    }
    tables = []
    for class_source in scores[args.lists[0]]:
        for chosen, reported in (args.lists, args.lists[::-1]):
            rows = summarize(scores[chosen][class_source], scores[reported][class_source])
            table = {"class_source": class_source, "chosen_on": chosen, "reported_on": reported}
            tables.append({**table, "rows": rows})
            print(f"classes from {class_source}, thresholds from {chosen}, scores on {reported}")
            for name, row in rows.items():
                threshold = f"threshold {row['threshold']!s:5s}"
                print(f"  {name:22s} {threshold} mIoU {row['miou']:.4f}  {row['iou']}")
    if args.json:
        config = cam_config(segmenter)
        record = {
            "command": command(),
            "images": {name: len(source) for name, source in sources.items()},
            "limit": args.limit,
            "device": str(segmenter.device),
            "scales": config.scales,
            "flip": config.flip,
            "refiners": {
                name: refiner.config.model_dump(mode="json") for name, refiner in refiners.items()
            },
            "tables": tables,
        }
        add_entry(args.json, args.entry or args.run.resolve().name, record)


if __name__ == "__main__":
    run_as_command(main)
