"""The data doctor: everything worth knowing about a data set before training on it."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tag2mask.data.coco import COCOConfig, coco_splits, index_coco
from tag2mask.data.folder import FolderConfig, index_folder, is_held_out
from tag2mask.data.index import DatasetIndex, count, merge_indexes
from tag2mask.data.tags import name_some, tag_matrix
from tag2mask.data.voc import IMAGE_FOLDER, index_voc, read_list, voc_lists, voc_root
from tag2mask.errors import DataError
from tag2mask.io.images import read_image
from tag2mask.types import BACKGROUND, IGNORE

FEW_IMAGES = 20
"""Below this many images of a class, expect little."""
_MOST_LINES = 10


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found, and what to do about it."""

    root: Path
    source: Literal["coco", "folder", "voc"]
    """Data source of a recipe that reads these data."""
    images: int = 0
    unreadable: int = 0
    negatives: int = 0
    """Images that show none of the classes."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Class -> images that show it."""
    tags_per_image: Mapping[int, int] = field(default_factory=dict)
    """Number of tags -> images with that many."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) in pixels of the smallest, the middle and the largest image by area."""
    masks: int = 0
    """Images with a mask file."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Part or list -> images."""
    problems: tuple[str, ...] = ()
    """What training would refuse."""
    warnings: tuple[str, ...] = ()
    """What would go through, but make the masks worse."""

    def share(self, name: str) -> float:
        """Return the share in [0, 1] of the images that show a class."""
        return self.classes[name] / self.images if self.images else 0.0


class _InspectedImage(NamedTuple):
    """One image and its mask, looked at."""

    digest: bytes
    """Of the file's content; empty where it cannot be read."""
    size: tuple[int, int] | None
    """(width, height), upright; None: unreadable."""
    problem: str | None
    mask_problem: str | None
    shows_class: bool
    """Whether the mask has a pixel of a class."""


def check_folder(root: Path, *, strict: bool = False) -> CheckReport:
    """Look at every image, tag and mask of a data set.

    Args:
        root: A folder in COCO format or VOC layout, or one that the source `folder` reads.
        strict: Count unreadable images as faults, as training with `data.strict` does.

    Returns:
        The report; a data set that cannot be read at all has its reason in `problems`.
    """
    source = layout_of(root)
    try:
        look = {"coco": _index_coco, "voc": _index_voc, "folder": _index_folder}[source]
        dataset_index, parts = look(root)
    except DataError as error:
        return CheckReport(root, source, problems=tuple(str(error).splitlines()))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = pool.map(lambda name: _look(dataset_index, name), dataset_index.images)
        looks = dict(zip(dataset_index.images, found, strict=True))
    broken = [look.problem for look in looks.values() if look.problem is not None]
    bad_masks = [look.mask_problem for look in looks.values() if look.mask_problem is not None]
    by_area = sorted((look.size for look in looks.values() if look.size), key=math.prod)
    rows = list(dataset_index.tags.values())
    shown = Counter(tag for row in rows for tag in row)
    problems = [*dataset_index.problems, *_first_lines(bad_masks, "unusable mask")]
    warnings = [
        *dataset_index.warnings,
        *_tag_warnings(rows, dataset_index.shown),
        *_name_warnings(dataset_index),
    ]
    warnings += _twin_warnings(looks) + _mask_warnings(source, dataset_index, looks)
    (problems if strict else warnings).extend(_first_lines(broken, "unreadable image"))
    return CheckReport(
        root=root,
        source=source,
        images=len(dataset_index.images),
        unreadable=len(broken),
        negatives=sum(not row for row in rows),
        classes={name: shown[name] for name in dataset_index.shown},
        tags_per_image=dict(sorted(Counter(len(row) for row in rows).items())),
        sizes=(by_area[0], by_area[len(by_area) // 2], by_area[-1]) if by_area else (),
        masks=len(dataset_index.masks),
        parts=parts,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def layout_of(root: Path) -> Literal["coco", "folder", "voc"]:
    """Name the data source that reads a folder."""
    if coco_splits(root.expanduser()):
        return "coco"
    try:
        return "voc" if voc_root(root).is_dir() else "folder"
    except DataError:
        return "folder"


def _index_voc(root: Path) -> tuple[DatasetIndex, dict[str, int]]:
    """Survey the images of all lists."""
    place = voc_root(root)
    lists = voc_lists(place)
    if not lists:
        raise DataError(f"{place}: has {IMAGE_FOLDER} but no list in ImageSets/Segmentation")
    return index_voc(place, lists), {name: len(read_list(place, name)) for name in lists}


def _index_coco(root: Path) -> tuple[DatasetIndex, dict[str, int]]:
    """Survey the images of all splits; those of a split of which no image is there count 0."""
    config = COCOConfig(name="coco", root=root, keep_empty=True)
    indexes = {split: index_coco(config, split) for split in coco_splits(root.expanduser())}
    there = {
        split: dataset_index for split, dataset_index in indexes.items() if dataset_index.images
    } or indexes
    parts = {split: len(dataset_index.images) for split, dataset_index in indexes.items()}
    return merge_indexes(root, there), parts


def _index_folder(root: Path) -> tuple[DatasetIndex, dict[str, int]]:
    """Survey a folder as the source reads it when nothing is set."""
    config = FolderConfig(name="folder", root=root)
    dataset_index = index_folder(config)
    held_out = sum(is_held_out(name, config.val_fraction) for name in dataset_index.images)
    return dataset_index, {"train": len(dataset_index.images) - held_out, "val": held_out}


def _look(dataset_index: DatasetIndex, name: str) -> _InspectedImage:
    """Read one image, and its mask if there is one."""
    path = dataset_index.images[name]
    digest, size, problem, mask_problem, shows_class = b"", None, None, None, False
    try:
        digest = hashlib.sha256(path.read_bytes()).digest()
        height, width = read_image(path).shape[:2]
        size = (width, height)
    except OSError as error:
        problem = f"{path}: cannot be read ({error.strerror})"
    except DataError as error:
        problem = str(error)
    if name in dataset_index.masks:
        classes = dataset_index.mask_classes or dataset_index.shown
        try:
            values = dataset_index.read_mask(
                name, len(classes), (size[1], size[0]) if size else None
            )
            shows_class = bool(((values != BACKGROUND) & (values != IGNORE)).any())
        except DataError as error:
            mask_problem = str(error)
    return _InspectedImage(digest, size, problem, mask_problem, shows_class)


def _tag_warnings(rows: Sequence[Sequence[str]], classes: Sequence[str]) -> list[str]:
    """Tell of tags from which the classes cannot be learned well."""
    matrix = tag_matrix(rows, classes).astype(np.int64)
    counts = matrix.sum(axis=0)
    warnings = [
        f"class '{name}': every image shows it, so nothing tells it from background; add images "
        "without it, with their other tags or none"
        for name, number in zip(classes, counts, strict=True)
        if number == len(rows)
    ]
    few = [
        f"{name} ({number})"
        for name, number in zip(classes, counts, strict=True)
        if number < FEW_IMAGES
    ]
    if few:
        warnings.append(
            f"classes with fewer than {FEW_IMAGES} images: {name_some(few, _MOST_LINES)}; expect "
            "little of them, add images"
        )
    together = matrix.T @ matrix  # (F, F) images that show both
    warnings += [
        f"classes '{classes[i]}' and '{classes[j]}' always occur together, so tags cannot tell "
        "them apart; add images of each alone, or merge them"
        for i in range(len(classes))
        for j in range(i + 1, len(classes))
        if together[i, j] == counts[i] == counts[j]
    ]
    return warnings


def _name_warnings(dataset_index: DatasetIndex) -> list[str]:
    """Tell of tags that look mistyped or are no class, and of classes without an image."""
    folded: dict[str, list[str]] = {}
    for name in dataset_index.shown:
        folded.setdefault(name.casefold(), []).append(name)
    warnings = [
        f"tags {', '.join(repr(name) for name in names)} differ in case only and count as "
        "different classes; write them alike"
        for names in folded.values()
        if len(names) > 1
    ]
    for name in folded.get("background", []):
        warnings.append(
            f"tag '{name}' would be learned as a class; an image without classes has no tags at all"
        )
    unseen = [name for name in dataset_index.mask_classes if name not in dataset_index.shown]
    if unseen:
        warnings.append(
            f"no image shows {name_some(unseen, _MOST_LINES)}; leave it out of data.classes"
        )
    return warnings


def _twin_warnings(looks: Mapping[str, _InspectedImage]) -> list[str]:
    """Tell of files with equal content."""
    twins: dict[bytes, list[str]] = {}
    for name, look in looks.items():
        twins.setdefault(look.digest, []).append(name)
    groups = [" = ".join(names) for digest, names in twins.items() if digest and len(names) > 1]
    if not groups:
        return []
    return [f"images with equal content: {name_some(groups)}; keep one of each"]


def _mask_warnings(
    source: str, dataset_index: DatasetIndex, looks: Mapping[str, _InspectedImage]
) -> list[str]:
    """Tell of masks that cannot be meant as they are."""
    if not dataset_index.masks:
        return []
    warnings = []
    if source == "folder" and len(dataset_index.masks) < len(dataset_index.images):
        warnings.append(
            f"{len(dataset_index.masks):,} of {count(len(dataset_index.images), 'image')} have a mask; held-out "
            "images are scored by masks only if all of them have one"
        )
    if not any(look.shows_class or look.mask_problem for look in looks.values()):
        warnings.append(
            f"no mask shows a class: pixels are {BACKGROUND} (background) or {IGNORE} (ignore) "
            "only; objects are written as 1, 2, ... in the order of the classes"
        )
    return warnings


def _first_lines(lines: Sequence[str], thing: str) -> list[str]:
    """Return the first lines and one that counts the others."""
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], *([f"and {count(more, f'more {thing}')}"] if more > 0 else [])]
