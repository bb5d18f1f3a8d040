"""Time AdvCAM on a batch of images against one image and class after another.

The reference works like the published program: for each image and class, it climbs with the image
and its flipped copy. Each round has one backward pass for Grad-CAM and one for the climb, both
through the entire network and with gradients of the weights. Times are reported only if both give
the same CAM in float64. bfloat16, AdvCAM's default on processors that are fast in it, is timed
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

from row import Row, check_gap, save, shortest_times, show
from tag2mask.config.recipe import parse_recipe
from tag2mask.functional.cam import upsample
from tag2mask.functional.precision import has_fast_bf16
from tag2mask.inference.run import open_run
from tag2mask.methods.advcam import AdvCAM, AdvCAMConfig
from tag2mask.methods.build import build_method

CLASSES = tuple(f"class{index}" for index in range(6))
TOLERANCE = 1e-8
"""Largest difference of CAMs with peak 1, in float64; in float32 a climb amplifies rounding."""
CHECKED_PX = 96
"""Side of the image on which both are compared."""
GOAL = 1 / 3
REFERENCE = "one by one"


def build(run: Path | None, **settings: Any) -> AdvCAM:
    """Load the classifier of a `cam` run, or build an untrained one of the same size."""
    config = AdvCAMConfig(**settings)
    if run is not None:
        method = open_run(
            run, "last", lambda recipe: recipe.model_copy(update={"method": config})
        ).method
    else:
        raw = {
            "data": {"name": "voc", "classes": CLASSES},
            "backbone": {"name": "hybrid", "weights": "none"},
            "method": config.model_dump(),
        }
        torch.manual_seed(0)
        method = build_method(parse_recipe(raw, "benchmark"))
        for part in method.modules():
            if isinstance(part, nn.Conv2d):  # the default makes the CAM of a deep network vanish
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    assert isinstance(method, AdvCAM)
    return method.eval()


def make_images(method: AdvCAM, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Make normalized smooth images, their flipped copies, and two tags for each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 12, 12), generator=generator).float()
    image = method.backbone.normalize(upsample(coarse, (side, side)).to(torch.uint8))
    tags = torch.zeros(count, method.num_foreground)
    for row in range(count):
        tags[row, [row % method.num_foreground, (row + 2) % method.num_foreground]] = 1
    return torch.cat([image, image.flip(-1)]), tags.repeat(2, 1)


def one_by_one(method: AdvCAM, image: Tensor, tags: Tensor) -> Tensor:
    """(N, F, h, w) sums of Grad-CAMs over the rounds, 0 for absent classes."""
    count = len(image) // 2
    cam: Tensor | None = None
    for row in range(count):
        for class_index in tags[row].nonzero()[:, 0].tolist():
            maps = climb_pair(method, image[[row, row + count]], class_index)
            if cam is None:
                size = (len(image), method.num_foreground, *maps.shape[1:])
                cam = torch.zeros(size, dtype=image.dtype)
            cam[[row, row + count], class_index] = maps
    assert cam is not None
    return cam


def climb_pair(method: AdvCAM, pair: Tensor, class_index: int) -> Tensor:
    """(2, h, w) sums of one class's Grad-CAMs while an image and its flipped copy climb it."""
    config = method.config
    bounds = pair.amin((1, 2, 3), keepdim=True), pair.amax((1, 2, 3), keepdim=True)
    first = total = None
    for _ in range(config.iterations):
        pair = pair.detach().requires_grad_()
        features = method.backbone(pair).maps[-1]
        features.retain_grad()
        maps = method.head.raw(features).relu()
        method.zero_grad()
        maps[:, class_index].sum().backward(retain_graph=True)
        gradient = features.grad
        assert gradient is not None
        weight = gradient.sum((2, 3)) / (gradient > 0).sum((1, 2, 3)).clamp_min(1)[:, None]
        grad_cam = (features * weight[:, :, None, None]).sum(1).relu()  # (2, h, w)
        current = grad_cam.detach()
        first = current if first is None else first
        total = current if total is None else total + current
        score = maps.mean((2, 3))
        peak = grad_cam.amax((1, 2), keepdim=True)
        region = (grad_cam / peak > config.discriminative_threshold).float()
        drift = ((grad_cam - first).abs() * region).sum()
        objective = (
            2 * score[:, class_index].sum() - score.sum() - config.regularization_weight * drift
        )
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


def scale_to_peak(maps: Tensor) -> Tensor:
    """Divide each map by its peak."""
    return maps / maps.amax((2, 3), keepdim=True).clamp_min(1e-12)


def disagreement(method: AdvCAM) -> float:
    """Compare both on a small image in float64: largest difference of CAMs with peak 1."""
    image, tags = make_images(method, 1, CHECKED_PX)
    image = image.double()
    method.double()
    ours, reference = method.compute_cam(image, tags).cam, one_by_one(method, image, tags)
    present = tags[:, :, None, None] > 0
    return float(((scale_to_peak(ours) - scale_to_peak(reference)) * present).abs().max())


def comparisons(times: dict[str, float], case: str) -> list[Row]:
    """Compare times for `make bench`; the goal is for the precision that `auto` selects."""
    ours = {name: time for name, time in times.items() if name != REFERENCE}
    default = "bfloat16" if "bfloat16" in ours else "float32"
    return [
        Row(
            f"AdvCAM, {name}, {case}",
            time,
            REFERENCE,
            times[REFERENCE],
            max_ratio=GOAL if name == default else None,
        )
        for name, time in ours.items()
    ]


def main() -> None:
    """Check that both give the same CAM, then time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="run of method cam; default: untrained weights")
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
    image, tags = make_images(full, args.images, args.side)
    gap = disagreement(build(args.run, iterations=args.rounds, label_precision="fp32"))
    check_gap("CAM", gap, TOLERANCE)
    jobs: dict[str, Callable[[], object]] = {
        "float32": lambda: full.compute_cam(image, tags),
        REFERENCE: lambda: one_by_one(full, image, tags),
    }
    if has_fast_bf16("cpu"):
        jobs["bfloat16"] = lambda: half.compute_cam(image, tags)
    case = f"{args.images} images of {args.side} px, 2 classes, {args.rounds} rounds"
    rows = comparisons(shortest_times(jobs, args.repeats), case)
    show(rows)
    print(f"largest difference of the CAMs {gap:.1e}")
    save(args.json, rows, largest_gap=gap)


if __name__ == "__main__":
    main()
