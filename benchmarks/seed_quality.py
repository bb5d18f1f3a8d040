"""Quality of masks on photos with true masks: raw maps, refined, propagated; both gates.

Each row's background threshold is chosen on one list and its score reported on another; nothing
else is fitted to a mask. Every photo is looked at once: all thresholds are judged on the same
evidence. Methods that work while labelling (`--method advcam` on a run of cam) look at photos with
their tags, so that there is the gate `oracle` alone. A list with a folder in its name is a file.

Run: python benchmarks/seed_quality.py RUN --root DIR [--lists devval train] [--json FILE]
    [--method NAME [KEY=VALUE ...]] [--long-side 256]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from row import command
from tag2mask import plugins
from tag2mask.data.base import Source
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.evaluation.sweep import ThresholdSweep
from tag2mask.functional.cam import upsample
from tag2mask.functional.precision import label_autocast
from tag2mask.functional.pseudo_label import refined_labels
from tag2mask.methods.base import Method
from tag2mask.prediction.decision import decide, drafted
from tag2mask.prediction.segmenter import Segmenter
from tag2mask.prediction.test_time import Look, choose_classes, collect, settled
from tag2mask.recipe import PredictConfig
from tag2mask.types import Gate, Mask

Floats = npt.NDArray[np.float32]
GATES: tuple[Gate, ...] = ("oracle", "predicted")
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, *np.arange(0.10, 0.81, 0.05).round(2).tolist())
"""Fine where evidence is sharp: beside a narrow peak all else is weak."""


class Masks(NamedTuple):
    """All masks of one photo for one choice of classes."""

    score: Floats
    """(F, H, W) evidence, 0 for classes not chosen."""
    refined: Sequence[Mask]
    """One per threshold."""
    propagated: Mask | None
    propagated_refined: Mask | None


class Rows:
    """Confusion matrices of one list: raw and refined per threshold, propagated once."""

    def __init__(self, num_classes: int) -> None:
        self.raw = ThresholdSweep(THRESHOLDS, num_classes)
        self.refined = [ConfusionMatrix(num_classes) for _ in THRESHOLDS]
        self.propagated = ConfusionMatrix(num_classes)
        self.propagated_refined = ConfusionMatrix(num_classes)

    def add(self, masks: Masks, truth: Mask) -> None:
        """Judge one photo under every threshold."""
        self.raw.update(masks.score, truth)
        for matrix, mask in zip(self.refined, masks.refined, strict=True):
            matrix.update(truth, mask)
        if masks.propagated is not None and masks.propagated_refined is not None:
            self.propagated.update(truth, masks.propagated)
            self.propagated_refined.update(truth, masks.propagated_refined)


def evidence_settings(segmenter: Segmenter) -> PredictConfig:
    """The run's test-time settings, by the protocol that cuts masks from evidence."""
    predict = segmenter.recipe.predict.model_copy(update={"protocol": "rml"})
    return settled(predict, segmenter.method)


def cut(segmenter: Segmenter, photo: Tensor, seen: Look, keys: tuple[int, ...]) -> Masks:
    """Cut every mask of one photo from what was seen of it."""
    refiner, predict = segmenter.method.refiner, segmenter.recipe.predict
    gated = torch.zeros_like(seen.cam)
    gated[:, list(keys)] = seen.cam[:, list(keys)]
    score = upsample(gated, photo.shape[-2:])[0].numpy()
    refined = refine(segmenter, photo, seen.cam, keys)
    if seen.affinity is None and seen.propagation is None:
        return Masks(score, refined, None, None)
    spread = drafted(seen, keys)
    plain, smooth = (decide(photo, spread, predict, used).mask.numpy() for used in (None, refiner))
    return Masks(score, refined, plain, smooth)


def refine(
    segmenter: Segmenter, photo: Tensor, cam: Tensor, keys: tuple[int, ...]
) -> Sequence[Mask]:
    """One refined mask per threshold, all thresholds as stacks over one photo."""
    size = photo.shape[-2:]
    if not keys:
        return [np.zeros(size, dtype=np.uint8)] * len(THRESHOLDS)
    refiner = segmenter.method.refiner
    assert refiner is not None, "the recipe names no refiner"
    tags = torch.zeros(1, cam.shape[1])
    tags[:, list(keys)] = 1
    return list(refined_labels(photo, cam, tags, refiner, THRESHOLDS, len(keys))[0].byte().numpy())


@torch.no_grad()
def judge(segmenter: Segmenter, source: Source, limit: int | None = None) -> dict[Gate, Rows]:
    """Look once at every photo of a list, or at `limit` of them spread evenly; both gates."""
    labels = type(segmenter.method).look is not Method.look  # works while labelling
    gates = GATES[:1] if labels else GATES
    rows: dict[Gate, Rows] = {gate: Rows(len(source.class_names) + 1) for gate in gates}
    predict = evidence_settings(segmenter).model_copy(update={"propagate": True})
    segmenter.method.eval()  # from scratch on, BatchNorm would read each photo's own statistics
    count = len(source) if limit is None else min(limit, len(source))
    for position, index in enumerate(np.linspace(0, len(source) - 1, count).astype(int)):
        sample = source[int(index)]
        assert sample.mask is not None
        photo = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None]
        tags = torch.from_numpy(sample.tags.astype(np.float32))[None]
        with label_autocast("auto", "cpu"), segmenter.among(source):
            given = tags if labels else None
            seen = collect(segmenter.method, photo, predict, given, sample.name)
        made: dict[tuple[int, ...], Masks] = {}  # mostly both gates choose the same classes
        for gate, kept in rows.items():
            keys = choose_classes(seen.prob, tags, predict, gate)
            if keys not in made:
                made[keys] = cut(segmenter, photo, seen, keys)
            kept.add(made[keys], sample.mask)
        if position % 50 == 49:
            print(f"  {position + 1} of {count} photos", file=sys.stderr, flush=True)
    return rows


def summarise(chosen: Rows, reported: Rows) -> dict[str, dict[str, object]]:
    """Row name -> threshold from the first list, mIoU and IoU per class on the second."""
    raw_threshold = chosen.raw.best()[0]
    refined_best = int(np.argmax([matrix.miou() for matrix in chosen.refined]))
    pairs = {
        "cam": (raw_threshold, reported.raw.report_at(raw_threshold)),
        "cam + refiner": (THRESHOLDS[refined_best], reported.refined[refined_best]),
        "propagated": (None, reported.propagated),
        "propagated + refiner": (None, reported.propagated_refined),
    }
    return {
        name: {
            "threshold": threshold,
            "miou": round(matrix.miou(), 4),
            "iou": [round(value, 4) for value in matrix.iou().tolist()],
        }
        for name, (threshold, matrix) in pairs.items()
        if matrix.counts.any()
    }


def load(args: argparse.Namespace) -> Segmenter:
    """Load the run, with another method and size where they were asked for."""
    method = None
    if args.method:
        name, *pairs = args.method
        settings = dict(pair.split("=", 1) for pair in pairs)
        method = plugins.load("methods", name).Config(**settings)
    segmenter = Segmenter.load(args.run, args.weights, method=method)
    if args.long_side is None:
        return segmenter
    predict = segmenter.recipe.predict.model_copy(update={"long_side_px": args.long_side})
    recipe = segmenter.recipe.model_copy(update={"predict": predict})
    return Segmenter(segmenter.method, recipe, origin=segmenter.origin)


def main() -> None:
    """Print a table per gate and direction, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--lists", nargs=2, default=["devval", "train"], metavar="LIST")
    parser.add_argument("--limit", type=int, help="at most this many photos of each list")
    parser.add_argument("--weights", choices=["best", "last"], default="last")
    parser.add_argument("--method", nargs="+", help="another method for the weights, KEY=VALUE")
    parser.add_argument("--long-side", type=int, help="resize photos to it, in place of the run's")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    segmenter = load(args)
    data = segmenter.recipe.data.model_copy(update={"root": args.root})
    kind = plugins.load("data", data.name)
    sources = {name: kind(data, name + ".txt") for name in args.lists}
    judged = {name: judge(segmenter, source, args.limit) for name, source in sources.items()}
    tables = []
    for gate in judged[args.lists[0]]:
        for chosen, reported in (args.lists, args.lists[::-1]):
            rows = summarise(judged[chosen][gate], judged[reported][gate])
            tables.append(
                {"gate": gate, "chosen_on": chosen, "reported_on": reported, "rows": rows}
            )
            print(f"gate {gate}, thresholds chosen on {chosen}, reported on {reported}")
            for name, row in rows.items():
                at = f"threshold {row['threshold']!s:5s}"
                print(f"  {name:22s} {at} mIoU {row['miou']:.4f}  {row['iou']}")
    if args.json:
        record = {
            "command": command(),
            "photos": {name: len(source) for name, source in sources.items()},
            "limit": args.limit,
            "scales": evidence_settings(segmenter).scales,
            "flip": evidence_settings(segmenter).flip,
            "tables": tables,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
