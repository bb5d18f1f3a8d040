"""Measure reading a COCO annotation file like train2014 against the index of pycocotools.

Each reader runs in its own process on the same generated file. Measured are its processor time, the
peak memory it adds and the memory it keeps. Then both make the same masks.

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

from tag2mask.errors import RunError
from tag2mask.types import Mask

if TYPE_CHECKING:
    from row import Row

ANNOTATED = 82_081 / 82_783
"""Share of train2014 images with an annotation."""
SIZES = ((640, 480), (480, 640), (640, 427), (500, 375))
"""Common widths and heights."""
CATEGORIES = 80
CROWDS = 0.012
"""Share of annotations that are crowds, which have run lengths."""
MASKS = 300
READERS = ("ours", "pycocotools")
MakeMask = Callable[[int], Mask]


def write_annotations(path: Path, images: int, annotations: int) -> None:
    """Write a file like `instances_train2014.json`: polygons with 24 corners on average, crowds."""
    rng = np.random.default_rng(0)
    sizes = [SIZES[kind] for kind in rng.integers(len(SIZES), size=images)]
    annotated = round(images * ANNOTATED)
    more = rng.integers(annotated, size=max(annotations - annotated, 0))
    owners = np.sort(np.concatenate([np.arange(min(annotated, annotations)), more]))
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2014}, "images": [')
        _write_list(file.write, (_image(number, size) for number, size in enumerate(sizes)))
        file.write('], "annotations": [')
        notes = (_annotation(rng, number, int(i), sizes[i]) for number, i in enumerate(owners))
        _write_list(file.write, notes)
        categories = [{"id": number, "name": f"class {number}"} for number in range(CATEGORIES)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def _write_list(write: Callable[[str], object], members: Iterator[Mapping[str, object]]) -> None:
    for position, member in enumerate(members):
        write((", " if position else "") + json.dumps(member))


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
    borders = np.concatenate([[0], np.sort(inside), [width * height]])
    return {"counts": np.diff(borders).tolist(), "size": [height, width]}


def read_ours(path: Path) -> MakeMask:
    """Read with this package."""
    from tag2mask.data.coco_annotations import read_annotations

    return read_annotations(path).mask


def read_pycocotools(path: Path) -> MakeMask:
    """Read with pycocotools; paste masks of its `annToMask` in the order this package uses."""
    from pycocotools.coco import COCO

    coco = COCO(str(path))
    ids = [image["id"] for image in coco.dataset["images"]]
    ranks = {number: rank for rank, number in enumerate(sorted(coco.cats))}

    def mask(index: int) -> npt.NDArray[np.uint8]:
        image = coco.imgs[ids[index]]
        pixels = np.zeros((image["height"], image["width"]), dtype=np.uint8)
        for note in coco.imgToAnns[image["id"]]:
            if not note["iscrowd"]:
                pixels[coco.annToMask(note) == 1] = ranks[note["category_id"]] + 1
        return pixels

    return mask


def memory_mb(entry: str) -> float:
    """Read the memory of this process from /proc: VmRSS (now) or VmHWM (peak), in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(entry))


def measure_reader(name: str, path: Path) -> dict[str, float]:
    """Read a file and make masks in this process."""
    before, start = memory_mb("VmRSS"), time.process_time()
    make_mask = {"ours": read_ours, "pycocotools": read_pycocotools}[name](path)
    read = time.process_time()
    measured = {"peak_mb": memory_mb("VmHWM") - before, "kept_mb": memory_mb("VmRSS") - before}
    total = sum(int(make_mask(index).astype(np.int64).sum()) for index in range(MASKS))
    measured["mask_ms"] = 1e3 * (time.process_time() - read) / MASKS
    return {name: round(value, 2) for name, value in measured.items()} | {
        "read_s": round(read - start, 2),
        "sum_of_masks": total,
    }


def run_reader(name: str, path: Path) -> dict[str, float]:
    """Measure a reader in a new process."""
    process = subprocess.run(
        [sys.executable, __file__, "--reader", name, "--file", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return measured


def comparisons(measured: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Compare time and memory; exit if the masks differ."""
    from row import Row  # imports torch, whose memory must not count

    ours, reference = (measured[name] for name in READERS)
    if ours["sum_of_masks"] != reference["sum_of_masks"]:
        raise RunError("the masks differ; their times cannot be compared")
    cases = (
        ("read the file, processor time", "read_s", "s"),
        ("peak memory while reading", "peak_mb", "MB"),
        ("memory kept", "kept_mb", "MB"),
        ("mask of one image, processor time", "mask_ms", "ms"),
    )
    return [Row(case, ours[key], "pycocotools", reference[key], unit) for case, key, unit in cases]


def main() -> None:
    """Print the rows and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=82_783)
    parser.add_argument("--annotations", type=int, default=604_907)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--reader", choices=READERS, help="measure only this reader, on --file")
    parser.add_argument("--file", type=Path)
    args = parser.parse_args()
    if args.reader is not None:
        print(json.dumps(measure_reader(args.reader, args.file)))
        return
    from row import save, show

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "instances_train2014.json")
        write_annotations(path, args.images, args.annotations)
        size_mb = round(path.stat().st_size / 1e6, 1)
        measured = {name: run_reader(name, path) for name in READERS}
    rows = comparisons(measured)
    show(rows)
    save(args.json, rows, file_mb=size_mb, measured=measured)


if __name__ == "__main__":
    main()
