"""Measure the peak memory of labeling one large image: reading, network, refiner, mask file.

Run: python benchmarks/large_images.py [--run RUN] [--megapixels 1,25,100] [--classes 1,5]
    [--tiles 8192,1024] [--json FILE] [KEY=VALUE ...]

Each line is a process of its own; the peak is what the operating system counted, the interpreter
and its libraries included. Without a run, an untrained small network takes part: its weights are
small, and time and memory of the other steps are those of every network.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from row import command, run_as_command
from tag2mask.config.overrides import apply_overrides, parse_overrides
from tag2mask.config.recipe import Recipe
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.images import read_image
from tag2mask.io.masks import save_mask
from tag2mask.methods.build import build_method

SIDES = (4, 3)
"""Width to height of the images."""


def numbers(text: str) -> list[int]:
    """Read whole numbers with commas between them."""
    return [int(one) for one in text.split(",")]


def write_image(path: Path, megapixels: int) -> None:
    """Write a JPEG of colored blobs, an image that is the same in every run."""
    unit = (megapixels * 1e6 / (SIDES[0] * SIDES[1])) ** 0.5
    width, height = (round(unit * side) for side in SIDES)
    coarse = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    image = PILImage.fromarray(coarse).resize((width, height), PILImage.Resampling.BICUBIC)
    image.save(path, quality=90)


def untrained(classes: int, words: list[str]) -> Segmenter:
    """Build a small network with random weights."""
    raw = {
        "data": {"name": "folder", "classes": [f"class {index}" for index in range(classes)]},
        "backbone": {"name": "tiny"},
        "method": {"name": "cam"},
        "refiner": {"name": "par"},
    }
    recipe = apply_overrides(raw, parse_overrides(words), "benchmark")
    torch.manual_seed(0)
    return Segmenter(build_method(recipe), recipe)


def trained(run: Path, words: list[str]) -> Segmenter:
    """Load a run."""

    def configure(recipe: Recipe) -> Recipe:
        return apply_overrides(recipe.plain(), parse_overrides(words), str(run))

    return Segmenter.load(run, configure=configure)


def label_once(image: Path, run: Path | None, classes: int, words: list[str]) -> dict[str, Any]:
    """Label one image file with `classes` tags; return peak memory in MiB and seconds."""
    torch.set_num_threads(1)
    segmenter = trained(run, words) if run else untrained(classes, words)
    before = _peak_mib()
    start = time.perf_counter()
    tags = np.zeros(len(segmenter.class_names), dtype=np.uint8)
    tags[:classes] = 1
    pixels = read_image(image)
    after_reading = _peak_mib()
    made = segmenter.segment(pixels, tags)
    save_mask(made.mask, image.with_suffix(".png"))
    return {
        "start_mib": before,
        "read_mib": after_reading,
        "peak_mib": _peak_mib(),
        "seconds": round(time.perf_counter() - start, 1),
    }


def _peak_mib() -> int:
    """Peak resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # `getrusage` would count what the parent had when it started this process
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every combination in a process of its own, and print it."""
    rows = []
    print("megapixels  tags  tile_px  at start  after reading  peak MiB  seconds")
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in args.megapixels:
            image = Path(folder) / f"{megapixels}.jpg"
            write_image(image, megapixels)
            for tile_px in args.tiles:
                for classes in args.classes:
                    words = [*args.words, f"predict.tile_px={tile_px}"]
                    job = json.dumps([str(image), str(args.run or ""), classes, words])
                    done = subprocess.run(
                        [sys.executable, __file__, "--one", job],
                        stdout=subprocess.PIPE,
                        text=True,
                        check=True,
                    )
                    found = json.loads(done.stdout)
                    print(
                        f"{megapixels:10,}  {classes:4}  {tile_px:7}  {found['start_mib']:8,}  "
                        f"{found['read_mib']:13,}  {found['peak_mib']:8,}  {found['seconds']:7}",
                        flush=True,
                    )
                    rows.append(
                        {"megapixels": megapixels, "tags": classes, "tile_px": tile_px} | found
                    )
    return rows


def main() -> None:
    """Print one line per size, tile and number of tags; write all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="inference settings")
    parser.add_argument("--run", type=Path, help="trained run; default: an untrained network")
    parser.add_argument("--megapixels", type=numbers, default=[1, 25, 100], metavar="LIST")
    parser.add_argument("--classes", type=numbers, default=[1, 5], metavar="LIST", help="tags")
    parser.add_argument("--tiles", type=numbers, default=[8192, 1024], metavar="LIST")
    parser.add_argument("--json", type=Path, help="file; receives the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.one:
        image, run, classes, words = json.loads(args.one)
        print(json.dumps(label_once(Path(image), Path(run) if run else None, classes, words)))
        return
    rows = measure(args)
    if args.json:
        args.json.write_text(json.dumps({"command": command(), "table": rows}, indent=1) + "\n")


if __name__ == "__main__":
    run_as_command(main)
