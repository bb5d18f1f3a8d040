"""Time PAR against a plain one-hot-convolution version of the same formula, in one run.

    python benchmarks/par.py [--threads 2] [--repeats 9] [--json FILE]

The reference lets a 3x3 convolution with one-hot weights fetch the eight neighbors of each
dilation and builds the whole (N, C, 48, H, W) stack in every round. Both refine the same images, in
turn, and the outputs are compared before any time is believed. `ratio` is of wall-clock times,
`processor_ratio` of processor times; with `--threads 1` other work hardly changes the latter.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from row import Row, reject_gap, save
from tag2mask.refiners.par import PAR, ParConfig, neighbor_offsets

TOLERANCE = 1e-5


def neighbor_stack(maps: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """(N, C, H, W) -> (N, C, K, H, W), fetched by one-hot convolutions."""
    num, channels, height, width = maps.shape
    taps = torch.eye(9)[[0, 1, 2, 3, 5, 6, 7, 8]].view(8, 1, 3, 3)
    planes = maps.reshape(num * channels, 1, height, width)
    stacks = [
        F.conv2d(F.pad(planes, (d,) * 4, mode="replicate"), taps, dilation=d) for d in dilations
    ]
    return torch.cat(stacks, dim=1).view(num, channels, -1, height, width)


def plain_par(image: Tensor, probs: Tensor, config: ParConfig) -> Tensor:
    """PAR of images (N, 3, H, W) and probabilities (N, C, H, W), the formula line by line."""
    image = image.float() / 255
    near = neighbor_stack(image, config.dilations)
    propagate_cam = near.std(dim=2, keepdim=True) + 1e-8
    color = -(((near - image.unsqueeze(2)).abs() / (config.w1 * propagate_cam)) ** 2).mean(dim=1)
    distance = torch.tensor(neighbor_offsets(config.dilations)).float().norm(dim=1)
    position = -((distance / (config.w2 * distance.std())) ** 2)
    kernel = color.softmax(dim=1) + config.w3 * position.softmax(dim=0).view(1, -1, 1, 1)
    for _ in range(config.iterations):
        probs = (neighbor_stack(probs, config.dilations) * kernel.unsqueeze(1)).sum(dim=2)
    return probs / probs.sum(dim=1, keepdim=True)


def images(num: int, side: int) -> Tensor:
    """Colored cells under mild noise, uint8: edges to respect and grain to look past."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.rand(num, 3, 8, 8, generator=generator) * 255
    smooth = F.interpolate(cells, size=(side, side), mode="nearest")
    noise = 6 * torch.randn(num, 3, side, side, generator=generator)
    return (smooth + noise).clamp(0, 255).byte()


def seconds(work: Callable[[], Tensor]) -> tuple[float, float]:
    """Wall-clock and processor time of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(num: int, side: int, classes: int, repeats: int) -> dict[str, float]:
    """Check that both agree, then time them in turn; medians."""
    config = ParConfig()
    refiner = PAR(config)
    image = images(num, side)
    generator = torch.Generator().manual_seed(1)
    probs = torch.rand(num, classes, side, side, generator=generator).softmax(dim=1)
    with torch.inference_mode():
        gap = float((plain_par(image, probs, config) - refiner(image, probs)).abs().max())
        reject_gap("PAR", gap, TOLERANCE)
        rounds = [
            (
                *seconds(lambda: plain_par(image, probs, config)),
                *seconds(lambda: refiner(image, probs)),
            )
            for _ in range(repeats)
        ]
    plain, plain_processor, ours, ours_processor = (
        statistics.median(column) for column in zip(*rounds, strict=True)
    )
    return {
        "batch": num,
        "side_px": side,
        "classes": classes,
        "iterations": config.iterations,
        "threads": torch.get_num_threads(),
        "plain_ms": round(1e3 * plain, 2),
        "ours_ms": round(1e3 * ours, 2),
        "ratio": round(plain / ours, 1),
        "plain_processor_ms": round(1e3 * plain_processor, 2),
        "ours_processor_ms": round(1e3 * ours_processor, 2),
        "processor_ratio": round(plain_processor / ours_processor, 1),
        "largest_gap": gap,
    }


def comparisons(rows: Sequence[Mapping[str, float]]) -> list[Row]:
    """Wall-clock times as `make bench` shows them."""
    return [
        Row(
            f"PAR, {row['batch']} x {row['side_px']} px, {row['classes']} classes",
            row["ours_ms"],
            "one-hot convolutions",
            row["plain_ms"],
        )
        for row in rows
    ]


def main() -> None:
    """Print one line per size and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [
        measure(2, 160, 3, arguments.repeats),
        measure(8, 160, 4, max(3, arguments.repeats // 3)),
    ]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    save(arguments.json, comparisons(rows), rows=rows)


if __name__ == "__main__":
    main()
