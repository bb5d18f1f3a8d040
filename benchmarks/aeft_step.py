"""A full step of AEFT over two bare forward and backward passes of its network.

The step looks at the images and at the same images under the erasing map, pools both over the gated
pyramid, draws negatives and compares embeddings; the two passes are backbone and class layer alone,
on the same images, each with its own backward. Same network and batch, by turns.

Run: python benchmarks/aeft_step.py [--batch 8] [--side 256] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from row import Row, by_turns, save, show
from tag2mask.config.recipe import parse_recipe
from tag2mask.functional.cam import upsample
from tag2mask.methods.aeft.method import AEFT
from tag2mask.methods.build import build_method
from tag2mask.types import Batch

CLASSES = tuple(f"class{index}" for index in range(20))
LATE = 17_000
"""A step after the start of the triplets."""
ARCHITECTURE = "mobilenet_v1_0.75_224"


def build(stride: int) -> AEFT:
    """AEFT on an untrained MobileNet whose BatchNorms stand still, as with loaded weights."""
    recipe = parse_recipe(
        {
            "data": {"name": "voc", "classes": CLASSES},
            "backbone": {"name": "hub", "arch": ARCHITECTURE, "weights": "none", "stride": stride},
            "method": {"name": "aeft", "margin": 100.0},
        },
        "benchmark",
    )
    torch.manual_seed(0)
    method = build_method(recipe)
    assert isinstance(method, AEFT)
    return method.eval()


def make_batch(count: int, side: int) -> Batch:
    """Smooth colored images, each with two tags; any two that are no neighbors share none."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 12, 12), generator=generator).float()
    tags = torch.zeros(count, len(CLASSES))
    for single_image in range(count):
        tags[single_image, [single_image % len(CLASSES), (single_image + 1) % len(CLASSES)]] = 1
    image = upsample(coarse, (side, side)).to(torch.uint8)
    valid = torch.ones(count, side, side, dtype=torch.bool)
    return Batch(image, tags, valid, [str(n) for n in range(count)], max_tags=2)


def step(method: AEFT, batch: Batch) -> Callable[[], None]:
    """The whole training step but the optimizer."""

    def run() -> None:
        method.zero_grad(set_to_none=True)
        torch.stack(list(method.losses(batch, LATE).values())).sum().backward()

    return run


def two_passes(method: AEFT, batch: Batch) -> Callable[[], None]:
    """Forward and backward of backbone and class layer, twice."""

    def run() -> None:
        method.zero_grad(set_to_none=True)
        for _ in range(2):
            image = method.backbone.normalize(batch.image)
            method.head.raw(method.backbone(image).maps[-1]).mean().backward()

    return run


def comparisons(count: int, side: int, repeats: int) -> list[Row]:
    """Time steps and passes by turns at both usual strides."""
    batch = make_batch(count, side)
    rows = []
    for stride in (16, 8):
        method = build(stride)
        jobs = {"step": step(method, batch), "passes": two_passes(method, batch)}
        spent = by_turns(jobs, repeats)
        rows.append(
            Row(
                f"AEFT step, {count} images of {side} px, stride {stride}",
                spent["step"],
                "two bare passes",
                spent["passes"],
                most=1.3,
            )
        )
        assert method.monitor["hard_pairs"] == count, "every image takes part in the repulsion"
    return rows


def main() -> None:
    """Print the comparison and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = comparisons(args.batch, args.side, args.repeats)
    show(rows)
    save(args.json, rows)


if __name__ == "__main__":
    main()
