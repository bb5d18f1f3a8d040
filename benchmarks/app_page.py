"""Measure how fast the page of `tag2mask app` answers, and whether its memory stays flat.

Run: python benchmarks/app_page.py RUN IMAGES [--json FILE] [--entry NAME]

IMAGES is a folder of at least 21 images, 500 px wide for the usual numbers. Each number is measured
from outside, over HTTP, as by a browser:

1. `new image`: upload, network and mask of an image that is new to the page;
2. `slider`: mask of the same image at another background score, per refiner;
3. 50 requests from 4 visitors at once for masks of images at changing settings: errors, and the
   memory of the process after each of several rounds.

Nothing else should use the machine meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from page_server import PageServer, Visitor
from row import add_entry, command, run_as_command
from tag2mask.errors import DataError
from tag2mask.io.images import image_size, list_images

REPEATS = 20
VISITORS = 4
REQUESTS = 50
ROUNDS = 6


def seconds(job: Callable[[], object]) -> float:
    """Return the seconds that a job takes."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def new_images(visitor: Visitor, paths: list[Path]) -> tuple[list[float], list[str]]:
    """Drop images one after the other; return the seconds until each mask, and identifiers."""
    times, images = [], []

    def drop(path: Path) -> None:
        images.append(visitor.upload(path))
        visitor.mask(images[-1])

    for path in paths:
        times.append(seconds(lambda path=path: drop(path)))  # type: ignore[misc]
    return times, images


def slider_moves(visitor: Visitor, image: str, refiner: str) -> list[float]:
    """Move the slider of the background score; return the seconds until each mask."""
    visitor.mask(image, refiner=refiner)  # compiles loops
    levels = [0.1 + 0.03 * turn for turn in range(REPEATS)]
    return [
        seconds(lambda level=level: visitor.mask(image, background=level, refiner=refiner))  # type: ignore[misc]
        for level in levels
    ]


def rush(address: str, paths: list[Path]) -> int:
    """Send requests of several visitors at once; return how many were answered."""
    answered: list[int] = []

    def visit(number: int) -> None:
        visitor = Visitor(address)
        image = visitor.upload(paths[number % len(paths)])
        for turn in range(number, REQUESTS, VISITORS):
            visitor.mask(image, background=0.2 + 0.01 * turn)
            answered.append(turn)
        visitor.ask("DELETE", f"/api/images/{image}")

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(VISITORS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(answered)


def measure(run: str, paths: list[Path]) -> dict[str, Any]:
    """Start the page and measure."""
    with PageServer([run]) as server:
        visitor = Visitor(server.address)
        page = visitor.ask("GET", "/api/page")
        new_images(visitor, paths[:1])  # compiles loops
        start = server.memory_mib()
        times, images = new_images(visitor, paths[1 : REPEATS + 1])
        refiners = dict.fromkeys([page["refiner"], *page["refiners"]])
        sliders = {name: slider_moves(visitor, images[-1], name) for name in refiners}
        for image in images:
            visitor.ask("DELETE", f"/api/images/{image}")
        memory = [server.memory_mib()]
        answered = []
        for _ in range(ROUNDS):
            answered.append(rush(server.address, paths))
            memory.append(server.memory_mib())
        return {
            "new_image_s": round(statistics.median(times), 3),
            "new_image_slowest_s": round(max(times), 3),
            "slider_s": {
                name: round(statistics.median(moves), 3) for name, moves in sliders.items()
            },
            "refiner_of_the_run": page["refiner"],
            "answered": answered,
            "asked": REQUESTS,
            "memory_mib": {"start": round(start), "rounds": [round(one) for one in memory]},
        }


def main() -> None:
    """Measure, print, and add the entry to a results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("images", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--entry", default="app_page")
    args = parser.parse_args()
    paths = list_images(args.images)[: REPEATS + 1]
    if len(paths) <= REPEATS:
        raise DataError(f"{args.images}: needs at least {REPEATS + 1} images, has {len(paths)}")
    sizes = [image_size(path) for path in paths]
    entry = {
        "command": command(),
        "cores": os.cpu_count(),
        "images": len(paths),
        "long_side_px": max(max(size) for size in sizes),
        **measure(args.run, paths),
    }
    for key, value in entry.items():
        print(f"{key}: {value}")
    if args.json is not None:
        add_entry(args.json, args.entry, entry)


if __name__ == "__main__":
    run_as_command(main)
