"""Check a data set before training: counts, duplicates, problems that stop training, warnings."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tag2mask.data.checks.duplicates import duplicate_advice, find_duplicates
from tag2mask.data.checks.inspection import InspectedImage, inspect_image
from tag2mask.data.checks.other_files import (
    mask_like_advice,
    other_file_advice,
    unreadable_advice,
)
from tag2mask.data.checks.parts import describe_parts, held_out_advice, list_advice
from tag2mask.data.checks.report import Advice, CheckReport, Part
from tag2mask.data.checks.tag_advice import count_pairs, tag_advice
from tag2mask.data.coco import COCOConfig, index_coco
from tag2mask.data.folder import FolderConfig, index_folder, part_names
from tag2mask.data.index import DatasetIndex, count, merge_indexes
from tag2mask.data.layout import Layout, coco_splits, layout_of
from tag2mask.data.tags import name_some
from tag2mask.data.voc import IMAGE_FOLDER, index_voc, read_list, voc_lists, voc_root
from tag2mask.errors import DataError
from tag2mask.io.other_files import OTHER, TEXT, describe_file, kind_of
from tag2mask.types import BACKGROUND, IGNORE

Progress = Callable[[int, int], object]
"""Called with the number of images that are read, and of all images."""
_MOST_LINES = 10
_PartNames = Mapping[str, Sequence[str]]


def check_folder(
    root: Path, *, strict: bool = False, progress: Progress = lambda done, total: None
) -> CheckReport:
    """Read every image, tag and mask of a data set and report problems.

    Args:
        root: A folder in COCO format or VOC layout, or one that the source `folder` reads.
        strict: Count unreadable images as problems, as training with `data.strict` does.
        progress: Called after each image.

    Returns:
        The report; if the data set cannot be read at all, `problems` says why.
    """
    source = layout_of(root)
    if root.is_file():
        return CheckReport(root, source, advice=(_file_advice(root),))
    try:
        build_index = {"coco": _index_coco, "voc": _index_voc, "folder": _index_folder}[source]
        dataset_index, names = build_index(root)
    except DataError as error:
        advice = [Advice("layout", "problem", line) for line in error.problems]
        if root.is_dir():
            advice += other_file_advice(root, [])
        return CheckReport(root, source, advice=tuple(advice))
    inspected = _inspect_all(dataset_index, progress)
    parts = describe_parts(dataset_index, names)
    prints = {name: image.fingerprint for name, image in inspected.items() if image.fingerprint}
    duplicates = find_duplicates(dataset_index, prints, parts)
    advice = [Advice("index", "problem", line) for line in dataset_index.problems]
    advice += _learnable(dataset_index, parts, inspected, source)
    advice += _mask_advice(source, dataset_index, inspected)
    advice += unreadable_advice(dataset_index, inspected, strict=strict)
    advice += [Advice("index", "warning", line) for line in dataset_index.warnings]
    advice += tag_advice(dataset_index)
    advice += duplicate_advice(duplicates, has_tag_file=Path(dataset_index.where).is_file())
    advice += (held_out_advice if source == "folder" else list_advice)(dataset_index, parts)
    if source == "folder":
        advice += mask_like_advice(dataset_index, root, inspected)
        advice += other_file_advice(root, [path.parent for path in dataset_index.masks.values()])
    by_area = sorted((image.size for image in inspected.values() if image.size), key=math.prod)
    rows = list(dataset_index.tags.values())
    shown = Counter(tag for row in rows for tag in row)
    return CheckReport(
        root=root,
        source=source,
        images=len(dataset_index.images),
        unreadable=sum(image.problem is not None for image in inspected.values()),
        negatives=sum(not row for row in rows),
        classes={name: shown[name] for name in dataset_index.tag_names},
        tags_per_image=dict(sorted(Counter(len(row) for row in rows).items())),
        pairs=count_pairs(rows),
        sizes=(by_area[0], by_area[len(by_area) // 2], by_area[-1]) if by_area else (),
        masks=len(dataset_index.masks),
        groups=len(set(dataset_index.groups.values())),
        parts=parts,
        duplicates=duplicates,
        advice=tuple(advice),
        files=_files(dataset_index),
    )


def _file_advice(path: Path) -> Advice:
    """Say what to give instead of a file."""
    what = describe_file(path, "a folder")
    if kind_of(path) in (TEXT, OTHER):
        what = f"is a file; give the folder that contains it: {path.parent}"
    return Advice("layout", "problem", f"{path}: {what}")


def _index_voc(root: Path) -> tuple[DatasetIndex, _PartNames]:
    """Index the images of all lists."""
    root = voc_root(root)
    lists = voc_lists(root)
    if not lists:
        raise DataError(
            f"{root}: there is a folder {IMAGE_FOLDER} but no list in ImageSets/Segmentation; add "
            "one, a text file with one image name per line"
        )
    return index_voc(root, lists), {name: read_list(root, name) for name in lists}


def _index_coco(root: Path) -> tuple[DatasetIndex, _PartNames]:
    """Index the images of all splits; a split without its image files has none."""
    config = COCOConfig(name="coco", root=root, keep_empty=True)
    indexes = {split: index_coco(config, split) for split in coco_splits(root.expanduser())}
    nonempty = {split: index for split, index in indexes.items() if index.images} or indexes
    names = {
        split: [f"{split}/{name}" for name in index.images] for split, index in indexes.items()
    }
    return merge_indexes(root, nonempty), names


def _index_folder(root: Path) -> tuple[DatasetIndex, _PartNames]:
    """Index a folder as the source `folder` reads it with default settings."""
    config = FolderConfig(name="folder", root=root)
    dataset_index = index_folder(config)
    parts = {
        part: part_names(dataset_index, part, config.val_fraction) for part in ("train", "val")
    }
    return dataset_index, parts


def _inspect_all(dataset_index: DatasetIndex, progress: Progress) -> dict[str, InspectedImage]:
    """Read all images in threads: Pillow decodes without the interpreter's lock."""
    inspected = {}
    names = list(dataset_index.images)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = pool.map(lambda name: inspect_image(dataset_index, name), names)
        for name, result in zip(names, results, strict=True):
            inspected[name] = result
            progress(len(inspected), len(names))
    return inspected


def _learnable(
    dataset_index: DatasetIndex,
    parts: Mapping[str, Part],
    inspected: Mapping[str, InspectedImage],
    source: Layout,
) -> Iterator[Advice]:
    """Yield a problem if no training image, or none of a class, can be read."""
    training = [name for name, image in inspected.items() if source != "folder"]
    training = training or list(parts["train"].names if "train" in parts else ())
    readable = [name for name in training if inspected[name].problem is None]
    if training and not readable:
        line = f"{dataset_index.where}: no image can be read"
        yield Advice("unreadable", "problem", line)
        return
    lost = sorted({*dataset_index.tags_of(training)} - {*dataset_index.tags_of(readable)})
    if lost:
        yield Advice(
            "unreadable",
            "problem",
            f"{dataset_index.where}: no training image of {name_some(lost)} can be read; replace "
            "the images, or remove them with their tags",
        )


def _mask_advice(
    source: Layout, dataset_index: DatasetIndex, inspected: Mapping[str, InspectedImage]
) -> Iterator[Advice]:
    """Yield masks that cannot be used, and those that are probably not what the user means."""
    problems = {name: image.mask_problem for name, image in inspected.items() if image.mask_problem}
    for name, line in list(problems.items())[:_MOST_LINES]:
        yield Advice("mask", "problem", str(line), (name,))
    if len(problems) > _MOST_LINES:
        more = tuple(problems)[_MOST_LINES:]
        yield Advice("mask", "problem", f"and {count(len(more), 'more unusable mask')}", more)
    if not dataset_index.masks:
        return
    if source == "folder" and len(dataset_index.masks) < len(dataset_index.images):
        yield Advice(
            "mask",
            "note",
            f"{len(dataset_index.masks):,} of {count(len(dataset_index.images), 'image')} have a "
            "mask; held-out images are scored by mIoU only if all of them have one",
        )
    if not any(image.shows_class or image.mask_problem for image in inspected.values()):
        yield Advice(
            "mask",
            "warning",
            f"no mask contains a class: all pixels are {BACKGROUND} (background) or {IGNORE} "
            "(ignore); write objects as 1, 2, ... in the order of the classes",
        )


def _files(dataset_index: DatasetIndex) -> dict[str, Path]:
    """Return the file of each image, also of those that were made one image with another."""
    files = dict(dataset_index.images)
    for kept, others in dataset_index.merged.items():
        root = dataset_index.images[kept].parents[kept.count("/")]
        files |= {path.relative_to(root).with_suffix("").as_posix(): path for path in others}
    return files
