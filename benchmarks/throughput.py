"""Measure where the time of `label` goes, whether batches pay, and what a second process brings.

Run: python benchmarks/throughput.py RUN DATA [--images N] [--batches 1,2,4,8] [--processes 1,2]
    [--json FILE] [KEY=VALUE ...]

1. Stages of one image in one thread: processor time of decoding, network, refiner and thresholds,
   and writing. Other work on the machine hardly changes processor time.
2. Batches: processor time of the network per image when several copies of an image share a pass
   (on a CPU), and wall time of `tag2mask label` with each `predict.batch_size`. From 2 images on,
   refining and writing overlap with the network, on another core.
3. Processes: wall time of `tag2mask label` with each number of `--workers` (one thread each) and
   one image per pass.

Wall times include the start. They count on a quiet machine only, and with a hundred images or more.
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
    """Return the network's milliseconds per image for each number of images in a pass, on a CPU."""
    config, method = segmenter.config, segmenter.method
    image = image_tensor(source[0].image)
    normalized = segmenter.protocol.normalized_image(method, image, config)

    def forward(count: int) -> None:
        stacked = normalized.expand(count, -1, -1, -1)
        with torch.no_grad():
            for scale in config.scales or ():
                method.compute_cam(with_flip(stacked, scale, flip=config.flip))

    return {size: round(processor_ms(lambda n=size: forward(n)) / size, 2) for size in sizes}  # type: ignore[misc]


def label_s(args: argparse.Namespace, batch_size: int, workers: int) -> float:
    """Return the seconds that `tag2mask label` takes, start included."""
    words = ["label", str(args.run), str(args.data), *args.words]
    words += [f"predict.batch_size={batch_size}", "--workers", str(workers)]
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "tag2mask", *words, "--out", f"{out}/masks"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return round(time.perf_counter() - start, 2)


def compare(title: str, seconds: dict[int, float]) -> None:
    """Print the wall time of each setting, and how many times as fast as the first one it is."""
    first = next(iter(seconds.values()))
    for value, wall in seconds.items():
        print(f"label, {value} {title}: {wall:.2f} s, {first / wall:.2f} times the first")


def main() -> None:
    """Print and write all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, help="folder of tagged images")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="inference settings")
    parser.add_argument("--images", type=int, default=5, help="images of the table of stages")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8], metavar="LIST")
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
    single: dict[int, float] = {}
    if segmenter.device.type == "cpu":
        single = batches(segmenter, source, args.batches)
        for size, value in single.items():
            print(f"network, {size} images in a pass: {value:.2f} ms per image")
    by_batch = {size: label_s(args, size, 1) for size in args.batches}
    compare("images in a pass", by_batch)
    by_processes = {workers: label_s(args, 1, workers) for workers in args.processes}
    compare("processes", by_processes)
    if args.json:
        record = {"command": command(), "cores": os.cpu_count(), "images": len(source)}
        record["device"] = str(segmenter.device)
        tables = {
            **found,
            "batches_ms": single,
            "batches_wall_s": by_batch,
            "processes_wall_s": by_processes,
        }
        args.json.write_text(json.dumps({**record, **tables}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_as_command(main)
