"""Check a data set before training: counts, problems that stop training, and warnings."""

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
"""A class with fewer images gets a warning."""
_MAX_LINES = 10


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check: statistics, problems and warnings."""

    root: Path
    source: Literal["coco", "folder", "voc"]
    """Data source that reads this folder (`data.name`)."""
    images: int = 0
    unreadable: int = 0
    negatives: int = 0
    """Number of images that show none of the classes."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Class -> number of images that show it."""
    tags_per_image: Mapping[int, int] = field(default_factory=dict)
    """Number of tags -> number of images with that many."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) in pixels of the smallest, the median and the largest image by area."""
    masks: int = 0
    """Number of images with a mask."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Part or list -> number of images."""
    problems: tuple[str, ...] = ()
    """Problems that stop training, one line each."""
    warnings: tuple[str, ...] = ()
    """Problems that do not stop training but reduce the quality of masks, one line each."""

    def share(self, name: str) -> float:
        """Return the fraction of images that show a class."""
        return self.classes[name] / self.images if self.images else 0.0


class _InspectedImage(NamedTuple):
    """The result of reading one image and its mask."""

    digest: bytes
    """SHA-256 of the file; empty if it cannot be read."""
    size: tuple[int, int] | None
    """(width, height) after EXIF orientation; None if unreadable."""
    problem: str | None
    mask_problem: str | None
    shows_class: bool
    """Whether the mask contains a foreground pixel."""


def check_folder(root: Path, *, strict: bool = False) -> CheckReport:
    """Read every image, tag and mask of a data set and report problems.

    Args:
        root: A folder in COCO format or VOC layout, or one that the source `folder` reads.
        strict: Count unreadable images as problems, as training with `data.strict` does.

    Returns:
        The report; if the data set cannot be read at all, `problems` says why.
    """
    source = layout_of(root)
    try:
        build_index = {"coco": _index_coco, "voc": _index_voc, "folder": _index_folder}[source]
        dataset_index, parts = build_index(root)
    except DataError as error:
        return CheckReport(root, source, problems=tuple(str(error).splitlines()))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = pool.map(lambda name: _inspect_image(dataset_index, name), dataset_index.images)
        inspected = dict(zip(dataset_index.images, results, strict=True))
    unreadable = [image.problem for image in inspected.values() if image.problem is not None]
    bad_masks = [
        image.mask_problem for image in inspected.values() if image.mask_problem is not None
    ]
    by_area = sorted((image.size for image in inspected.values() if image.size), key=math.prod)
    rows = list(dataset_index.tags.values())
    image_counts = Counter(tag for row in rows for tag in row)
    problems = [*dataset_index.problems, *_first_lines(bad_masks, "unusable mask")]
    warnings = [
        *dataset_index.warnings,
        *_tag_warnings(rows, dataset_index.tag_names),
        *_name_warnings(dataset_index),
    ]
    warnings += _duplicate_warnings(inspected) + _mask_warnings(source, dataset_index, inspected)
    (problems if strict else warnings).extend(_first_lines(unreadable, "unreadable image"))
    return CheckReport(
        root=root,
        source=source,
        images=len(dataset_index.images),
        unreadable=len(unreadable),
        negatives=sum(not row for row in rows),
        classes={name: image_counts[name] for name in dataset_index.tag_names},
        tags_per_image=dict(sorted(Counter(len(row) for row in rows).items())),
        sizes=(by_area[0], by_area[len(by_area) // 2], by_area[-1]) if by_area else (),
        masks=len(dataset_index.masks),
        parts=parts,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def layout_of(root: Path) -> Literal["coco", "folder", "voc"]:
    """Return the name of the data source that reads a folder."""
    if coco_splits(root.expanduser()):
        return "coco"
    try:
        return "voc" if voc_root(root).is_dir() else "folder"
    except DataError:
        return "folder"


def _index_voc(root: Path) -> tuple[DatasetIndex, dict[str, int]]:
    """Index the images of all lists."""
    root = voc_root(root)
    lists = voc_lists(root)
    if not lists:
        raise DataError(
            f"{root}: there is a folder {IMAGE_FOLDER} but no list in ImageSets/Segmentation; add "
            "one, a text file with one image name per line"
        )
    return index_voc(root, lists), {name: len(read_list(root, name)) for name in lists}


def _index_coco(root: Path) -> tuple[DatasetIndex, dict[str, int]]:
    """Index the images of all splits; a split without its image files counts 0 images."""
    config = COCOConfig(name="coco", root=root, keep_empty=True)
    indexes = {split: index_coco(config, split) for split in coco_splits(root.expanduser())}
    nonempty = {split: index for split, index in indexes.items() if index.images} or indexes
    parts = {split: len(index.images) for split, index in indexes.items()}
    return merge_indexes(root, nonempty), parts


def _index_folder(root: Path) -> tuple[DatasetIndex, dict[str, int]]:
    """Index a folder as the source `folder` reads it with default settings."""
    config = FolderConfig(name="folder", root=root)
    dataset_index = index_folder(config)
    held_out = sum(is_held_out(name, config.val_fraction) for name in dataset_index.images)
    return dataset_index, {"train": len(dataset_index.images) - held_out, "val": held_out}


def _inspect_image(dataset_index: DatasetIndex, name: str) -> _InspectedImage:
    """Read one image and, if there is one, its mask."""
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
        classes = dataset_index.mask_classes or dataset_index.tag_names
        try:
            values = dataset_index.read_mask(
                name, len(classes), (size[1], size[0]) if size else None
            )
            shows_class = bool(((values != BACKGROUND) & (values != IGNORE)).any())
        except DataError as error:
            mask_problem = str(error)
    return _InspectedImage(digest, size, problem, mask_problem, shows_class)


def _tag_warnings(rows: Sequence[Sequence[str]], classes: Sequence[str]) -> list[str]:
    """Warn about tags from which a class cannot be learned well."""
    matrix = tag_matrix(rows, classes).astype(np.int64)
    counts = matrix.sum(axis=0)
    warnings = [
        f"class '{name}': every image shows it, so it cannot be distinguished from background; "
        "add images without it, with their other tags or none"
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
            f"classes with fewer than {FEW_IMAGES} images: {name_some(few, _MAX_LINES)}; their "
            "masks will be poor, add images"
        )
    together = matrix.T @ matrix  # (F, F) images that show both
    warnings += [
        f"classes '{classes[i]}' and '{classes[j]}' always occur together, so tags cannot "
        "distinguish them; add images that show only one of them, or merge the classes"
        for i in range(len(classes))
        for j in range(i + 1, len(classes))
        if together[i, j] == counts[i] == counts[j]
    ]
    return warnings


def _name_warnings(dataset_index: DatasetIndex) -> list[str]:
    """Warn about tags that look mistyped or are not a class, and about classes without images."""
    same_letters: dict[str, list[str]] = {}
    for name in dataset_index.tag_names:
        same_letters.setdefault(name.casefold(), []).append(name)
    warnings = [
        f"tags {', '.join(repr(name) for name in names)} differ only in case and count as "
        "different classes; write them in the same case"
        for names in same_letters.values()
        if len(names) > 1
    ]
    for name in same_letters.get("background", []):
        warnings.append(
            f"tag '{name}' would be learned as a class; give images that show no class an empty "
            "list of tags"
        )
    unused = [name for name in dataset_index.mask_classes if name not in dataset_index.tag_names]
    if unused:
        warnings.append(
            f"no image has the tag {name_some(unused, _MAX_LINES)}; leave it out of data.classes"
        )
    return warnings


def _duplicate_warnings(inspected: Mapping[str, _InspectedImage]) -> list[str]:
    """Warn about files with equal content."""
    duplicates: dict[bytes, list[str]] = {}
    for name, image in inspected.items():
        duplicates.setdefault(image.digest, []).append(name)
    groups = [" = ".join(names) for key, names in duplicates.items() if key and len(names) > 1]
    if not groups:
        return []
    return [f"images with equal content: {name_some(groups)}; keep one of each"]


def _mask_warnings(
    source: str, dataset_index: DatasetIndex, inspected: Mapping[str, _InspectedImage]
) -> list[str]:
    """Warn about masks that are probably not what the user means."""
    if not dataset_index.masks:
        return []
    warnings = []
    if source == "folder" and len(dataset_index.masks) < len(dataset_index.images):
        warnings.append(
            f"{len(dataset_index.masks):,} of {count(len(dataset_index.images), 'image')} have a "
            "mask; held-out images are scored by mIoU only if all of them have one"
        )
    if not any(image.shows_class or image.mask_problem for image in inspected.values()):
        warnings.append(
            f"no mask contains a class: all pixels are {BACKGROUND} (background) or {IGNORE} "
            "(ignore); write objects as 1, 2, ... in the order of the classes"
        )
    return warnings


def _first_lines(lines: Sequence[str], noun: str) -> list[str]:
    """Return the first lines and one that counts the others."""
    more = len(lines) - _MAX_LINES
    return [*lines[:_MAX_LINES], *([f"and {count(more, f'more {noun}')}"] if more > 0 else [])]
