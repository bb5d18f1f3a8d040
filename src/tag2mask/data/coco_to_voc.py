"""Data in COCO format written in VOC layout: masks as indexed PNG, `tags.csv`, a list per part.

```
OUT/SegmentationClass/train/NAME.png     OUT/ImageSets/Segmentation/train.txt     OUT/classes.json
OUT/JPEGImages/train -> the images       OUT/tags.csv
```

What exists is never changed: started again it goes on, and a file that it did not make stops it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tag2mask.data.coco import IMAGE_FOLDER, MASK_FOLDER, TAG_FILE, index_instances
from tag2mask.data.index import DatasetIndex
from tag2mask.data.instances import read_instances
from tag2mask.data.tags import read_tags
from tag2mask.data.voc import LIST_FOLDER
from tag2mask.errors import DataError, RunError
from tag2mask.io.files import write_text
from tag2mask.io.mask_folder import CLASSES_FILE
from tag2mask.io.masks import save_mask

_AT_ONCE = 256
"""Masks that are handed to the threads together; a fault stops the rest after as many."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion did."""

    part: str
    """Name of the list."""
    written: int
    already: int
    """Masks found finished from an earlier start."""
    linked: bool
    """Whether the images can be found in the layout."""


def convert_coco(
    instances: Path,
    images: Path,
    out: Path,
    *,
    part: str | None = None,
    keep_empty: bool = False,
    workers: int | None = None,
    tell: Callable[[int, int], object] | None = None,
) -> Converted:
    """Write the masks, tags and list of one instances file.

    Args:
        instances: JSON in COCO format.
        images: Folder of its images.
        out: New folder, one that this function has written, or one without the files that it makes.
        part: Name of the list and of the folders; None: the file's, so `instances_train2014.json`
            gives `train`.
        keep_empty: Also list images without any annotation.
        workers: Threads; None: as many as there are processor cores.
        tell: Called with the numbers of masks done and to do.

    Raises:
        DataError: If the file or an image is faulty, or annotations have no outlines.
        RunError: If `out` holds files of other origin, or the disk refuses.
    """
    name = part or part_name(instances)
    found = index_instances(read_instances(instances), images, keep_empty=keep_empty)
    found.reject_problems()
    if not found.masks:
        raise DataError(
            f"{instances}: annotations without outlines, no image at all, or over 254 classes; "
            "no masks can be painted"
        )
    origin = {"sha256": _digest(instances), "keep_empty": keep_empty}
    _claim(out, name, found.mask_classes, origin)
    linked = _link(out / IMAGE_FOLDER / name, images)
    folder = out / MASK_FOLDER / name
    if not (folder / CLASSES_FILE).is_file():  # evaluate reads it beside masks
        write_text(folder / CLASSES_FILE, json.dumps({"classes": found.mask_classes}) + "\n")
    missing = [image for image in found.images if not (folder / f"{image}.png").is_file()]
    _write_masks(found, missing, folder, workers or os.cpu_count() or 1, tell)
    _add_tags(out / TAG_FILE, found, name, images)
    listed = out / LIST_FOLDER / f"{name}.txt"
    if not listed.is_file():  # the last one: where it stands, the part is whole
        write_text(listed, "".join(f"{name}/{image}\n" for image in found.images))
    return Converted(name, len(missing), len(found.images) - len(missing), linked)


def part_name(instances: Path) -> str:
    """Name a part after its file, without year: `instances_val2014.json` is `val`."""
    stem = instances.stem.removeprefix("instances_").removesuffix(".coco").strip("_.")
    return re.sub(r"(?<=\D)\d{4}$", "", stem)


def _claim(out: Path, part: str, classes: tuple[str, ...], origin: dict[str, Any]) -> None:
    """Note in `classes.json` that a part is ours, or see that it is.

    Raises:
        RunError: If what stands there is of other origin.
    """
    path = out / CLASSES_FILE
    known: dict[str, Any] = {}
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            parts = known["parts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: is not of this program; choose another folder") from error
        if known.get("classes") != list(classes):
            raise RunError(f"{path}: has other classes; choose another folder")
    else:
        parts = {}
    if part in parts:
        if parts[part] != origin:
            raise RunError(
                f"{out}: its part '{part}' is of another file or keep_empty; choose another part"
            )
        return
    ours = [out / MASK_FOLDER / part, out / LIST_FOLDER / f"{part}.txt"]
    ours += [] if known else [out / TAG_FILE]
    for place in ours:
        if place.exists():
            raise RunError(f"{place}: exists already; choose another folder or part")
    described = {"classes": list(classes), "parts": {**parts, part: origin}}
    write_text(path, json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def _link(place: Path, images: Path) -> bool:
    """Let the layout's image folder lead to the images; False where the system has no links."""
    if place.exists():
        return True
    place.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError, NotImplementedError):
        place.symlink_to(images.resolve(), target_is_directory=True)
    return place.exists()


def _write_masks(
    found: DatasetIndex,
    names: list[str],
    folder: Path,
    workers: int,
    tell: Callable[[int, int], object] | None,
) -> None:
    """Paint and write masks, several at once."""

    def write(name: str) -> None:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_mask(found.read_mask(name, len(found.mask_classes), None), path)

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            list(pool.map(write, some))
            if tell is not None:
                tell(start + len(some), len(names))


def _add_tags(path: Path, found: DatasetIndex, part: str, images: Path) -> None:
    """Add the rows that the tag file lacks; those that it has stay as they are."""
    before = path.read_text(encoding="utf-8") if path.is_file() else "image,tags\n"
    known = read_tags(path) if path.is_file() else {}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name, tags in found.tags.items():
        image = f"{part}/{found.images[name].relative_to(images).as_posix()}"
        if image not in known:
            rows.writerow([image, ";".join(tags)])
    if text.tell() or not path.is_file():
        write_text(path, before + text.getvalue())


def _digest(path: Path) -> str:
    """Fingerprint of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
