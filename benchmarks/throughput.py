"""Measure where the time of `label` goes, whether batches pay, and what a second process brings.

Run: python benchmarks/throughput.py RUN DATA [--images N] [--batches 1,2,4] [--processes 1,2]
    [--json FILE] [KEY=VALUE ...]

1. Stages of one image in one thread: processor time of decoding, network, refiner and thresholds,
   and writing. Other work on the machine hardly changes processor time.
2. Batches: processor time of the network per image when several images of one size share a pass.
3. Processes: wall time of `tag2mask label` with each number of `--workers` (one thread each),
   start included. It counts on a quiet machine only, and with a hundred images or more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from row import command, run_as_command
from tag2mask.config.overrides import apply_overrides, parse_overrides
from tag2mask.config.recipe import Recipe
from tag2mask.data.base import Source
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.io.masks import save_mask
from tag2mask.methods.protocol import with_flip

REPEATS = 3


def numbers(text: str) -> list[int]:
    """Read whole numbers with commas between them."""
    return [int(one) for one in text.split(",")]


def processor_ms(job: Callable[[], object]) -> float:
    """Return the smallest processor time of a job over some repeats, after one to warm up."""
    found = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        job()
        found.append(1e3 * (time.process_time() - start))
    return min(found[1:])


def stages(segmenter: Segmenter, source: Source, images: int) -> dict[str, float]:
    """Return the mean milliseconds per image of each stage."""
    total = dict.fromkeys(("decode", "network", "refine", "write"), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(images):
            sample = source[index]
            output = segmenter.infer(sample.image, sample.tags, name=sample.name)
            mask, _ = segmenter.postprocess(output)
            path = Path(folder) / "mask.png"
            jobs: dict[str, Callable[[], object]] = {
                "decode": lambda at=index: source[at],  # type: ignore[misc]
                "network": lambda one=sample: segmenter.infer(one.image, one.tags, name=one.name),
                "refine": lambda one=output: segmenter.postprocess(one),
                "write": lambda one=mask, to=path: save_mask(one, to),
            }
            for name, job in jobs.items():
                total[name] += processor_ms(job) / images
    return {name: round(value, 2) for name, value in total.items()}


def batches(segmenter: Segmenter, source: Source, sizes: Sequence[int]) -> dict[int, float]:
    """Return the network's milliseconds per image for each number of images in a pass."""
    config, method = segmenter.config, segmenter.method
    image = image_tensor(source[0].image).to(segmenter.device)
    normalized = segmenter.protocol.normalized_image(method, image, config)

    def forward(count: int) -> None:
        stacked = normalized.expand(count, -1, -1, -1)
        with torch.no_grad():
            for scale in config.scales or ():
                method.compute_cam(with_flip(stacked, scale, flip=config.flip))
            if segmenter.device.type == "cuda":
                torch.cuda.synchronize()

    return {size: round(processor_ms(lambda n=size: forward(n)) / size, 2) for size in sizes}  # type: ignore[misc]


def processes(args: argparse.Namespace, images: Path) -> list[dict[str, Any]]:
    """Run `tag2mask label` once per number of processes; return seconds."""
    rows = []
    for workers in args.processes:
        with tempfile.TemporaryDirectory() as out:
            words = ["label", str(args.run), str(images), *args.words, "--workers", str(workers)]
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "tag2mask", *words, "--out", f"{out}/masks"],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            wall = time.perf_counter() - start
            rows.append({"processes": workers, "wall_s": round(wall, 2)})
            print(f"{workers} processes: {wall:.2f} s", flush=True)
    return rows


def main() -> None:
    """Print and write all three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, help="folder of tagged images")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="inference settings")
    parser.add_argument("--images", type=int, default=5, help="images of the table of stages")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4], metavar="LIST")
    parser.add_argument("--processes", type=numbers, default=[1, 2], metavar="LIST")
    parser.add_argument("--json", type=Path, help="file; receives all tables")
    args = parser.parse_intermixed_args()
    torch.set_num_threads(1)

    def configure(recipe: Recipe) -> Recipe:
        return apply_overrides(recipe.plain(), parse_overrides(args.words), str(args.run))

    segmenter = Segmenter.load(args.run, configure=configure)
    source = segmenter.tagged_images(args.data)
    count = min(args.images, len(source))
    found = {"stages_ms": stages(segmenter, source, count)}
    whole = sum(found["stages_ms"].values())
    for name, value in found["stages_ms"].items():
        print(f"{name:8} {value:8.2f} ms per image  {value / whole:5.1%}")
    single = batches(segmenter, source, args.batches)
    for size, value in single.items():
        print(f"{size} images in a pass: {value:.2f} ms per image")
    rows = processes(args, args.data)
    for row in rows[1:]:
        print(f"{row['processes']} processes: {rows[0]['wall_s'] / row['wall_s']:.2f} times one")
    if args.json:
        record = {"command": command(), "cores": os.cpu_count(), "images": len(source)}
        tables = {**found, "batches_ms": single, "processes": rows}
        args.json.write_text(json.dumps({**record, **tables}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_as_command(main)
