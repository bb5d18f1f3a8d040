"""Time PAR against a plain version of the same formula with one-hot convolutions.

In the reference a 3x3 convolution with one-hot weights fetches the eight neighbors of each dilation
and builds the full (N, C, 48, H, W) tensor in every iteration. Both refine the same images, in
turn; times are reported only if the outputs agree. `ratio` compares wall-clock times,
`processor_ratio` processor times, which other work hardly changes with `--threads 1`.

Run: python benchmarks/par.py [--threads 2] [--repeats 9] [--json FILE]
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

from row import Row, check_gap, save
from tag2mask.refiners.par import PAR, ParConfig, neighbor_offsets

TOLERANCE = 1e-5


def gather_neighbors(maps: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Gather K neighbors of each pixel by one-hot convolutions; (N, C, H, W) -> (N, C, K, H, W)."""
    num, channels, height, width = maps.shape
    taps = torch.eye(9)[[0, 1, 2, 3, 5, 6, 7, 8]].view(8, 1, 3, 3)
    planes = maps.reshape(num * channels, 1, height, width)
    neighbors = [
        F.conv2d(F.pad(planes, (d,) * 4, mode="replicate"), taps, dilation=d) for d in dilations
    ]
    return torch.cat(neighbors, dim=1).view(num, channels, -1, height, width)


def plain_par(image: Tensor, probs: Tensor, config: ParConfig) -> Tensor:
    """Refine (N, C, H, W) probabilities by (N, 3, H, W) images, with PAR's formula line by line."""
    image = image.float() / 255
    near = gather_neighbors(image, config.dilations)
    deviation = near.std(dim=2, keepdim=True) + 1e-8
    color = -(((near - image.unsqueeze(2)).abs() / (config.w1 * deviation)) ** 2).mean(dim=1)
    distance = torch.tensor(neighbor_offsets(config.dilations)).float().norm(dim=1)
    position = -((distance / (config.w2 * distance.std())) ** 2)
    kernel = color.softmax(dim=1) + config.w3 * position.softmax(dim=0).view(1, -1, 1, 1)
    for _ in range(config.iterations):
        probs = (gather_neighbors(probs, config.dilations) * kernel.unsqueeze(1)).sum(dim=2)
    return probs / probs.sum(dim=1, keepdim=True)


def make_images(num: int, side: int) -> Tensor:
    """Make uint8 images of colored squares with mild noise."""
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(num, 3, 8, 8, generator=generator) * 255
    smooth = F.interpolate(colors, size=(side, side), mode="nearest")
    noise = 6 * torch.randn(num, 3, side, side, generator=generator)
    return (smooth + noise).clamp(0, 255).byte()


def seconds(work: Callable[[], Tensor]) -> tuple[float, float]:
    """Measure wall-clock and processor time of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(num: int, side: int, classes: int, repeats: int) -> dict[str, float]:
    """Check that both agree, then measure median times in turn."""
    config = ParConfig()
    refiner = PAR(config)
    image = make_images(num, side)
    generator = torch.Generator().manual_seed(1)
    probs = torch.rand(num, classes, side, side, generator=generator).softmax(dim=1)
    with torch.inference_mode():
        gap = float((plain_par(image, probs, config) - refiner(image, probs)).abs().max())
        check_gap("PAR", gap, TOLERANCE)
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
        "batch_size": num,
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
    """Compare wall-clock times for `make bench`."""
    return [
        Row(
            f"PAR, {row['batch_size']} x {row['side_px']} px, {row['classes']} classes",
            row["ours_ms"],
            "one-hot convolutions",
            row["plain_ms"],
        )
        for row in rows
    ]


def main() -> None:
    """Print one line per size and write all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [
        measure(2, 160, 3, args.repeats),
        measure(8, 160, 4, max(3, args.repeats // 3)),
    ]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    save(args.json, comparisons(rows), rows=rows)


if __name__ == "__main__":
    main()
