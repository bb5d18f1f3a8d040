"""Measure images per second of `predict`, where the time goes, and what millions of images cost.

Nothing else should use the machine meanwhile. The images are predicted again and again until there
are enough; loading the network and the first image of each process do not count.

Run: python benchmarks/labeling_rate.py RUN IMAGES [--images 60] [--price 1.2] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from row import command, run_as_command
from tag2mask import api
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.image_inputs import input_images
from tag2mask.io.images import read_image
from tag2mask.io.masks import save_mask

TOTALS = (10_000_000, 1_000_000_000)
DAY_S = 86_400
DEADLINE_DAYS = 7
STAGES = ("decode", "network", "refine and threshold", "encode and write")


class Setup(NamedTuple):
    """How a machine is used."""

    title: str
    shards: int
    """Processes that each do a shard at the same time."""
    workers: int
    """Workers of each of these."""
    threads: int
    """Of each process."""


class Span(NamedTuple):
    """When the images of one process were done, in seconds of a clock that all processes share."""

    first: float
    last: float
    count: int
    """Images after the first one."""


def setups(cores: int) -> list[Setup]:
    """Return the ways to use a machine that are compared."""
    return [
        Setup("one process, one thread", 1, 1, 1),
        Setup(f"one process, {cores} threads", 1, 1, cores),
        Setup(f"one process, {cores} workers", 1, cores, 1),
        Setup(f"{cores} shards at once, one thread each", cores, 1, 1),
    ]


def enough_images(folder: Path, images: Path, count: int) -> Path:
    """Fill a folder with links to images, the same ones repeatedly if there are too few."""
    folder.mkdir()
    paths = itertools.cycle(input_images(images))
    for number, path in zip(range(count), paths, strict=False):
        (folder / f"{number:06d}{path.suffix}").symlink_to(path.absolute())
    return folder


def images_per_s(run: str, images: Path, out: Path, setup: Setup) -> float:
    """Predict all images once and return the rate of all processes together."""
    context = multiprocessing.get_context("spawn")
    jobs = [(run, images, out, setup, shard) for shard in range(setup.shards)]
    with context.Pool(setup.shards) as pool:
        spans = pool.starmap(predict_shard, jobs)
    return sum(span.count / (span.last - span.first) for span in spans)


def predict_shard(run: str, images: Path, out: Path, setup: Setup, shard: int) -> Span:
    """Predict one shard, or all images, in a process of its own."""
    torch.set_num_threads(setup.threads)
    done: list[float] = []
    parts = {"shards": setup.shards, "shard": shard} if setup.shards > 1 else {}
    api.predict(
        run,
        images,
        out,
        workers=setup.workers,
        on_image=lambda _: done.append(time.monotonic()),
        **parts,
    )
    skipped = setup.workers  # these are ready at about the same time
    return Span(done[skipped - 1], done[-1], len(done) - skipped)


def stage_times(segmenter: Segmenter, paths: Sequence[Path], folder: Path) -> dict[str, float]:
    """Return the median milliseconds of each stage in this process, in one thread."""
    times: dict[str, list[float]] = {name: [] for name in STAGES}
    for path in paths:
        marks = [time.perf_counter()]
        image = read_image(path)
        marks.append(time.perf_counter())
        output = segmenter.infer(image)
        marks.append(time.perf_counter())
        prediction = segmenter.build_prediction(output, *segmenter.postprocess(output))
        marks.append(time.perf_counter())
        save_mask(prediction.mask, folder / "mask.png")
        marks.append(time.perf_counter())
        for name, (start, end) in zip(STAGES, itertools.pairwise(marks), strict=True):
            times[name].append(1e3 * (end - start))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def plan(rate: float, mask_bytes: float, price: float | None) -> list[str]:
    """Return lines that say what many images take on machines like this one.

    Args:
        rate: Images per second of one machine.
        mask_bytes: Mean size of a mask file.
        price: Of a machine per hour; None: no costs.
    """
    lines = []
    for total in TOTALS:
        seconds = total / rate
        machines = math.ceil(seconds / (DEADLINE_DAYS * DAY_S))
        cost = "" if price is None else f", costs {seconds / 3600 * price:,.0f}"
        lines.append(
            f"{total:>13,} images: {seconds / DAY_S:,.1f} days of one such machine{cost}; "
            f"{machines:,} machines do it in {DEADLINE_DAYS} days; "
            f"masks {total * mask_bytes / 2**30:,.0f} GiB"
        )
    return lines


def measure(run: str, images: Path, count: int, price: float | None) -> dict[str, Any]:
    """Measure and print everything; return it as plain values."""
    cores = os.cpu_count() or 1
    with TemporaryDirectory() as temporary:
        folder = enough_images(Path(temporary, "images"), images, count)
        rates = {}
        for number, setup in enumerate(setups(cores)):
            rates[setup.title] = images_per_s(run, folder, Path(temporary, f"{number}"), setup)
            print(f"{setup.title:40s} {rates[setup.title]:8.2f} images/s", flush=True)
        masks = list(Path(temporary, "0").rglob("*.png"))
        mask_bytes = statistics.mean(path.stat().st_size for path in masks)
        torch.set_num_threads(1)
        segmenter = Segmenter.load(run)
        times = stage_times(segmenter, sorted(folder.iterdir())[:20], Path(temporary))
    total = sum(times.values())
    for name, value in times.items():
        print(f"  {name:38s} {value:8.2f} ms  {value / total:.0%}")
    best = max(rates, key=lambda title: rates[title])
    print(f"bottleneck: {max(times, key=lambda name: times[name])}")
    print(f"best: {best}, on {segmenter.device}")
    lines = plan(rates[best], mask_bytes, price)
    print("\n".join(lines))
    return {
        "command": command(),
        "cores": cores,
        "device": str(segmenter.device),
        "images_per_s": rates,
        "stages_ms": times,
        "mask_bytes": mask_bytes,
        "plan": lines,
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--images", type=int, default=60, dest="count", help="images per setup")
    parser.add_argument("--price", type=float, help="price of this machine per hour")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    record = measure(args.run, args.images, args.count, args.price)
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_as_command(main)
