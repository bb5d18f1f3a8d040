"""AdvCAM over images of one shape: all climb together, against one image and class after another.

The reference is written as the published program goes about it: for each image and each class, the
image and its mirror image; per round one backward pass for Grad-CAM and one for the climb, each
through the whole network with gradients of the weights. Both must give the same maps in float64
before any time is believed; bfloat16, AdvCAM's default where the processor is fast in it, is timed
beside float32.

Run: python benchmarks/advcam.py [--run RUN] [--images 4] [--side 256] [--rounds 4]
    [--threads 2] [--repeats 2] [--json FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from row import Row, by_turns, reject_gap, save, show
from tag2mask.config.recipe import parse_recipe
from tag2mask.functional.cam import upsample
from tag2mask.functional.precision import has_fast_bf16
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.advcam import AdvCAM, AdvCAMConfig
from tag2mask.methods.build import build_method

CLASSES = tuple(f"class{index}" for index in range(6))
TOLERANCE = 1e-8
"""Largest gap of maps whose peak is 1, in float64: in float32 a climb soon magnifies rounding."""
CHECKED_PX = 96
"""Side of the image on which both must agree."""
GOAL = 1 / 3
REFERENCE = "one by one"


def build(run: Path | None, **settings: Any) -> AdvCAM:
    """The classifier of a `cam` run, or an untrained one of the same size."""
    config = AdvCAMConfig(**settings)
    if run is not None:
        method = Segmenter.load(run, "last", method=config).method
    else:
        raw = {
            "data": {"name": "voc", "classes": CLASSES},
            "backbone": {"name": "hybrid", "weights": "none"},
            "method": config.model_dump(),
        }
        torch.manual_seed(0)
        method = build_method(parse_recipe(raw, "benchmark"))
        for part in method.modules():
            if isinstance(part, nn.Conv2d):  # otherwise depth makes all maps vanish
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    assert isinstance(method, AdvCAM)
    return method.eval()


def images(method: AdvCAM, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Normalized smooth images with their mirror images, and two tags each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 12, 12), generator=generator).float()
    image = method.backbone.normalize(upsample(coarse, (side, side)).to(torch.uint8))
    tags = torch.zeros(count, method.num_foreground)
    for row in range(count):
        tags[row, [row % method.num_foreground, (row + 2) % method.num_foreground]] = 1
    return torch.cat([image, image.flip(-1)]), tags.repeat(2, 1)


def one_by_one(method: AdvCAM, image: Tensor, tags: Tensor) -> Tensor:
    """(N, F, h, w) added Grad-CAMs, zero for absent classes."""
    count = len(image) // 2
    found: Tensor | None = None
    for row in range(count):
        for key in tags[row].nonzero()[:, 0].tolist():
            maps = climb_pair(method, image[[row, row + count]], key)
            if found is None:
                size = (len(image), method.num_foreground, *maps.shape[1:])
                found = torch.zeros(size, dtype=image.dtype)
            found[[row, row + count], key] = maps
    assert found is not None
    return found


def climb_pair(method: AdvCAM, pair: Tensor, key: int) -> Tensor:
    """Added (2, h, w) Grad-CAMs of one class while an image and its mirror image climb it."""
    config = method.config
    bounds = pair.amin((1, 2, 3), keepdim=True), pair.amax((1, 2, 3), keepdim=True)
    first = total = None
    for _ in range(config.iterations):
        pair = pair.detach().requires_grad_()
        features = method.backbone(pair).maps[-1]
        features.retain_grad()
        maps = method.head.raw(features).relu()
        method.zero_grad()
        maps[:, key].sum().backward(retain_graph=True)
        slope = features.grad
        assert slope is not None
        weight = slope.sum((2, 3)) / (slope > 0).sum((1, 2, 3)).clamp_min(1)[:, None]
        region = (features * weight[:, :, None, None]).sum(1).relu()  # (2, h, w)
        seen = region.detach()
        first = seen if first is None else first
        total = seen if total is None else total + seen
        score = maps.mean((2, 3))
        strong = (region / region.amax((1, 2), keepdim=True) > config.discriminative).float()
        drift = ((region - first).abs() * strong).sum()
        objective = 2 * score[:, key].sum() - score.sum() - config.hold * drift
        method.zero_grad()
        pair.grad = None
        objective.backward()
        assert pair.grad is not None
        largest = pair.grad.abs().amax((1, 2, 3), keepdim=True) + 1e-12
        moved = pair.detach() + config.step_size * pair.grad / largest
        pair = torch.minimum(torch.maximum(moved, bounds[0]), bounds[1])
    method.zero_grad()
    assert total is not None
    return total


def peak_one(maps: Tensor) -> Tensor:
    """Maps over their peaks."""
    return maps / maps.amax((2, 3), keepdim=True).clamp_min(1e-12)


def disagreement(method: AdvCAM) -> float:
    """Largest difference of present classes' maps, peak 1, on a small image in float64."""
    image, tags = images(method, 1, CHECKED_PX)
    image = image.double()
    method.double()
    ours, theirs = method.compute_cam(image, tags).cam, one_by_one(method, image, tags)
    present = tags[:, :, None, None] > 0
    return float(((peak_one(ours) - peak_one(theirs)) * present).abs().max())


def comparisons(times: dict[str, float], what: str) -> list[Row]:
    """Times as `make bench` shows them; the limit is for the arithmetic that `auto` chooses."""
    ours = {name: time for name, time in times.items() if name != REFERENCE}
    chosen = "bfloat16" if "bfloat16" in ours else "float32"
    return [
        Row(f"AdvCAM, {name}, {what}", time, REFERENCE, times[REFERENCE], most=limit)
        for name, time in ours.items()
        for limit in (GOAL if name == chosen else None,)
    ]


def main() -> None:
    """Check that the maps are the same, then time both in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="run of method cam; none: untrained weights")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    full = build(args.run, iterations=args.rounds, label_precision="fp32")
    half = build(args.run, iterations=args.rounds, label_precision="bf16")
    image, tags = images(full, args.images, args.side)
    gap = disagreement(build(args.run, iterations=args.rounds, label_precision="fp32"))
    reject_gap("maps", gap, TOLERANCE)
    jobs: dict[str, Callable[[], object]] = {
        "float32": lambda: full.compute_cam(image, tags),
        REFERENCE: lambda: one_by_one(full, image, tags),
    }
    if has_fast_bf16("cpu"):
        jobs["bfloat16"] = lambda: half.compute_cam(image, tags)
    what = f"{args.images} images of {args.side} px, 2 classes, {args.rounds} rounds"
    rows = comparisons(by_turns(jobs, args.repeats), what)
    show(rows)
    print(f"largest gap of the maps {gap:.1e}")
    save(args.json, rows, largest_gap=gap)


if __name__ == "__main__":
    main()
