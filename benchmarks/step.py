"""A full RML step over its floor: what no arrangement of the same work avoids.

The floor is bare forward + backward of the training views, plus the bare no-grad encoder forwards
that the multi-scale label maps still need once the scale-1 features are reused; each timed alone,
same network, same batch, in turn with the step.

Run: python benchmarks/step.py [--variant b1] [--batch 2] [--side 320] [--repeats 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tag2mask.functional.cam import scaled_size, upsample
from tag2mask.functional.precision import has_fast_bf16
from tag2mask.methods.base import build_method
from tag2mask.methods.rml import RML
from tag2mask.recipe import parse_recipe
from tag2mask.types import Batch

CLASSES = tuple(f"class{index}" for index in range(20))
LATE = 10_000
"""A step after warm-up."""


def build(variant: str, precision: str) -> RML:
    """RML as in the recipe for VOC, untrained."""
    recipe = parse_recipe(
        {
            "data": {"name": "voc", "classes": CLASSES[:0]},
            "backbone": {"name": "mit", "variant": variant, "weights": "none"},
            "method": {"name": "rml", "label_precision": precision},
            "refiner": {"name": "par"},
        },
        "benchmark",
    ).with_classes(CLASSES)
    torch.manual_seed(0)
    method = build_method(recipe)
    assert isinstance(method, RML)
    return method.train()


def make_batch(count: int, side: int) -> Batch:
    """Smooth coloured photos with two tags each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 12, 12), generator=generator).float()
    tags = torch.zeros(count, len(CLASSES))
    tags[:, [3, 14]] = 1
    image = upsample(coarse, (side, side)).to(torch.uint8)
    valid = torch.ones(count, side, side, dtype=torch.bool)
    return Batch(image, tags, valid, [str(n) for n in range(count)], most_tags=2)


def step(method: RML, batch: Batch) -> Callable[[], None]:
    """The whole training step but the optimiser."""

    def run() -> None:
        method.zero_grad(set_to_none=True)
        torch.stack(list(method.losses(batch, LATE).values())).sum().backward()

    return run


def bare_training(method: RML, batch: Batch) -> Callable[[], None]:
    """Forward and backward of both views, the encoder alone."""
    image = method.backbone.normalise(batch.image)
    small = method.view.image(image)

    def run() -> None:
        method.zero_grad(set_to_none=True)
        (method.backbone(image).maps[-1].sum() + method.backbone(small).maps[-1].sum()).backward()

    return run


def bare_labelling(method: RML, batch: Batch) -> Callable[[], None]:
    """No-grad encoder forwards of the mirror at scale 1 and both views at 0.5 and 1.5."""
    image = method.backbone.normalise(batch.image)
    half, large = (upsample(image, scaled_size(image.shape[-2:], s)) for s in (0.5, 1.5))
    views: list[Tensor] = [image.flip(-1)]
    views += [torch.cat([view, view.flip(-1)]) for view in (half, large)]

    @torch.no_grad()
    def run() -> None:
        for view in views:
            method.backbone(view)

    return run


def medians(parts: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each part, all parts in turn, after one warm-up each."""
    for run in parts.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name, run in parts.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


@torch.no_grad()
def label_agreement(variant: str, batch: Batch) -> float:
    """Share of pixels whose pseudo-label is the same from bf16 and fp32 maps, untrained network."""
    labels = []
    for precision in ("fp32", "bf16"):
        method = build(variant, precision)
        image = method.backbone.normalise(batch.image)
        labels.append(method._pseudo_label(batch, image, method.evidence(image).cam))
    return float((labels[0] == labels[1]).float().mean())


def main() -> None:
    """Print the ratios and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="b1")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    batch = make_batch(args.batch, args.side)
    full, half = build(args.variant, "fp32"), build(args.variant, "bf16")
    parts = {
        "step fp32": step(full, batch),
        "training floor": bare_training(full, batch),
        "labelling floor": bare_labelling(full, batch),
    }
    if has_fast_bf16("cpu"):
        parts["step, labels in bf16"] = step(half, batch)
    seconds = medians(parts, args.repeats)
    floor = seconds["training floor"] + seconds["labelling floor"]
    ratios = {"step / floor": seconds["step fp32"] / floor}
    if has_fast_bf16("cpu"):
        ratios["bf16 labels / fp32 step"] = seconds["step, labels in bf16"] / seconds["step fp32"]
        ratios["label agreement"] = label_agreement(args.variant, batch)
    for name, value in {**seconds, **ratios}.items():
        print(f"{name:26s} {value:8.3f}")
    if args.json:
        record = {
            "command": "python " + " ".join(sys.argv),
            "threads": torch.get_num_threads(),
            "seconds": seconds,
            "ratios": ratios,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
