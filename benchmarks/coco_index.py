"""Reading a COCO annotation file of the size of train2014 against pycocotools' own index.

Each reader runs in a process of its own on the same generated file: processor time, the peak of
its memory above what the process held before, and what it keeps. Then both make the same masks.

Run: python benchmarks/coco_index.py [--annotations 604907] [--images 82783] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tag2mask.types import Mask

if TYPE_CHECKING:
    from row import Row

LISTED = 82_081 / 82_783
"""Share of the images of train2014 that have an annotation."""
SIZES = ((640, 480), (480, 640), (640, 427), (500, 375))
"""Usual widths and heights."""
CATEGORIES = 80
CROWDS = 0.012
"""Share of crowds; they come as run lengths."""
MASKS = 300
READERS = ("ours", "pycocotools")
MakeMask = Callable[[int], Mask]


def write_annotations(path: Path, images: int, annotations: int) -> None:
    """Write a file like `instances_train2014.json`: polygons of 24 corners on average, crowds."""
    rng = np.random.default_rng(0)
    sizes = [SIZES[kind] for kind in rng.integers(len(SIZES), size=images)]
    listed = round(images * LISTED)
    more = rng.integers(listed, size=max(annotations - listed, 0))
    owners = np.sort(np.concatenate([np.arange(min(listed, annotations)), more]))
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2014}, "images": [')
        _write_list(file.write, (_image(number, size) for number, size in enumerate(sizes)))
        file.write('], "annotations": [')
        notes = (_annotation(rng, number, int(i), sizes[i]) for number, i in enumerate(owners))
        _write_list(file.write, notes)
        categories = [{"id": number, "name": f"class {number}"} for number in range(CATEGORIES)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def _write_list(write: Callable[[str], object], members: Iterator[Mapping[str, object]]) -> None:
    for place, member in enumerate(members):
        write((", " if place else "") + json.dumps(member))


def _image(number: int, size: tuple[int, int]) -> dict[str, object]:
    name = f"COCO_train2014_{number:012d}.jpg"
    return {
        "license": 5,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/train2014/{name}",
        "height": size[1],
        "width": size[0],
        "date_captured": "2013-11-14 16:28:13",
        "flickr_url": "http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z.jpg",
        "id": number,
    }


def _annotation(
    rng: np.random.Generator, number: int, image: int, size: tuple[int, int]
) -> dict[str, object]:
    crowd = rng.random() < CROWDS
    parts = 1 + int(rng.random() < 0.12)
    return {
        "segmentation": _runs(rng, size) if crowd else [_polygon(rng, size) for _ in range(parts)],
        "area": 1234.56785,
        "iscrowd": int(crowd),
        "image_id": image,
        "bbox": [199.84, 200.46, 77.71, 70.88],
        "category_id": int(rng.integers(CATEGORIES)),
        "id": number,
    }


def _polygon(rng: np.random.Generator, size: tuple[int, int]) -> list[float]:
    corners = int(np.clip(rng.gamma(2.2, 10), 4, 150))
    radius = np.clip(rng.lognormal(3.3, 1.0), 3, 300) * rng.uniform(0.6, 1, corners)
    angle = np.sort(rng.random(corners)) * 2 * np.pi
    around = rng.random(2) * size
    points = around + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    numbers: list[float] = points.clip(0, size).round(2).ravel().tolist()
    return numbers


def _runs(rng: np.random.Generator, size: tuple[int, int]) -> dict[str, list[int]]:
    width, height = size
    inside = rng.choice(width * height - 1, 2 * int(rng.integers(25, 200)), replace=False) + 1
    cuts = np.concatenate([[0], np.sort(inside), [width * height]])
    return {"counts": np.diff(cuts).tolist(), "size": [height, width]}


def read_ours(path: Path) -> MakeMask:
    """Read with this package."""
    from tag2mask.data.coco_annotations import read_annotations

    return read_annotations(path).mask


def read_pycocotools(path: Path) -> MakeMask:
    """Read with the official tool; masks by its `annToMask`, as the package lays them."""
    from pycocotools.coco import COCO

    found = COCO(str(path))
    ids = [image["id"] for image in found.dataset["images"]]
    ranks = {number: rank for rank, number in enumerate(sorted(found.cats))}

    def mask(index: int) -> npt.NDArray[np.uint8]:
        image = found.imgs[ids[index]]
        made = np.zeros((image["height"], image["width"]), dtype=np.uint8)
        for note in found.imgToAnns[image["id"]]:
            if not note["iscrowd"]:
                made[found.annToMask(note) == 1] = ranks[note["category_id"]] + 1
        return made

    return mask


def memory_mb(entry: str) -> float:
    """A line of Linux' record of this process (VmRSS: held now, VmHWM: the peak), in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(entry))


def measure_reader(name: str, path: Path) -> dict[str, float]:
    """Read a file and make masks in this process."""
    before, start = memory_mb("VmRSS"), time.process_time()
    make_mask = {"ours": read_ours, "pycocotools": read_pycocotools}[name](path)
    read = time.process_time()
    found = {"peak_mb": memory_mb("VmHWM") - before, "kept_mb": memory_mb("VmRSS") - before}
    total = sum(int(make_mask(index).astype(np.int64).sum()) for index in range(MASKS))
    found["mask_ms"] = 1e3 * (time.process_time() - read) / MASKS
    return {name: round(value, 2) for name, value in found.items()} | {
        "read_s": round(read - start, 2),
        "sum_of_masks": total,
    }


def run_reader(name: str, path: Path) -> dict[str, float]:
    """Measure a reader in a new process, so that memory is its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--reader", name, "--file", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def comparisons(measured: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Rows of time and memory; stops where masks differ."""
    from row import Row  # imports torch, which the measured processes must not hold

    ours, theirs = (measured[name] for name in READERS)
    if ours["sum_of_masks"] != theirs["sum_of_masks"]:
        raise SystemExit("the masks differ: times mean nothing")
    named = (
        ("read the file, processor time", "read_s", "s"),
        ("peak memory while reading", "peak_mb", "MB"),
        ("memory kept", "kept_mb", "MB"),
        ("mask of one image, processor time", "mask_ms", "ms"),
    )
    return [Row(what, ours[key], "pycocotools", theirs[key], unit) for what, key, unit in named]


def main() -> None:
    """Print the rows and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=82_783)
    parser.add_argument("--annotations", type=int, default=604_907)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--reader", choices=READERS, help="measure this one only, on --file")
    parser.add_argument("--file", type=Path)
    asked = parser.parse_args()
    if asked.reader is not None:
        print(json.dumps(measure_reader(asked.reader, asked.file)))
        return
    from row import save, show

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "instances_train2014.json")
        write_annotations(path, asked.images, asked.annotations)
        size_mb = round(path.stat().st_size / 1e6, 1)
        measured = {name: run_reader(name, path) for name in READERS}
    rows = comparisons(measured)
    show(rows)
    save(asked.json, rows, file_mb=size_mb, measured=measured)


if __name__ == "__main__":
    main()
