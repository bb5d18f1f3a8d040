"""Your own data: a folder of images with a tag file, or with one folder per class.

```
DATA/tags.csv              image,tags          DATA/cat/a.jpg        the folder is the tag
DATA/images/a.jpg          a.jpg,cat;dog       DATA/dog/b.jpg
DATA/images/b.jpg          b.jpg,              DATA/_negative/c.jpg  shows no class
DATA/masks/a.png           (optional: class indices, palette or gray PNG)
```
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tag2mask.config.schema import DataConfig, Fraction
from tag2mask.data.base import Source
from tag2mask.data.index import DatasetIndex, count, find_masks, name_images
from tag2mask.data.indexed import IndexedDataset, existing_root
from tag2mask.data.tags import (
    TagTable,
    folder_tags,
    image_key,
    name_some,
    read_tags,
    resolve_classes,
)
from tag2mask.errors import DataError, NothingHeldOutError
from tag2mask.io.mask_folder import read_class_names

TAG_FILES = ("tags.csv", "tags.jsonl")
PARTS = ("train", "val", "all")


class FolderConfig(DataConfig):
    """Settings of a folder of own images; relative paths start at `root`."""

    tags: Path | None = None
    """CSV or JSON Lines file; none: tags.csv or tags.jsonl in root, or else class folders."""
    images: Path | None = None
    """Folder of the images; none: `images` in root where there is one, or else root itself."""
    masks: Path | None = None
    """Folder of true masks, for scores; none: `masks` in root where there is one."""
    val_fraction: Fraction = 0.1
    """Share of images held out; which ones depends on their names only, so new images move none."""


class Folder(IndexedDataset, Source):
    """Images of a folder with tags.

    Args:
        config: Settings; `classes` empty means every tag in use, sorted.
        split: "train", "val" (the held-out share) or "all".
    """

    Config: ClassVar[type[DataConfig]] = FolderConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        if not isinstance(config, FolderConfig):
            raise TypeError(f"Folder needs a FolderConfig, got {type(config).__name__}")
        if split not in PARTS:
            raise DataError(f"a folder has no part '{split}'; its parts are {', '.join(PARTS)}")
        dataset_index = index_folder(config)
        dataset_index.reject_problems()
        # Images to label need not show every class that the network knows.
        known = dataset_index.shown if split == "train" else (*config.classes, *dataset_index.shown)
        classes = resolve_classes(config.classes, tuple(dict.fromkeys(known)), dataset_index.where)
        part = [
            name
            for name in dataset_index.images
            if split == "all" or is_held_out(name, config.val_fraction) == (split == "val")
        ]
        if not part:
            kind = NothingHeldOutError if split == "val" else DataError
            raise kind(
                f"{dataset_index.where}: part '{split}' is empty ({count(len(dataset_index.images), 'image')}); "
                f"change data.val_fraction (now {config.val_fraction:g})"
            )
        self._hold(dataset_index, classes, part, learned=split == "train", strict=config.strict)


def is_held_out(name: str, fraction: float) -> bool:
    """Whether the image of this name is held out; independent of all other images."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def index_folder(config: FolderConfig) -> DatasetIndex:
    """Look at a folder: find images, tags and masks and bring them together.

    Raises:
        DataError: If a folder or tag file is missing or unreadable, or there is no image. What
            can be told beside other faults is in the survey's `problems`.
    """
    root = existing_root(config.root)
    image_folder = _chosen_folder(root, config.images, "images") or root
    masks = _chosen_folder(root, config.masks, "masks")
    images, problems = name_images(image_folder, leave_out=masks)
    if not images:
        raise DataError(f"{image_folder}: holds no images (JPEG, PNG, TIFF, WebP, BMP, GIF)")
    paths = {
        name: image_key(path.relative_to(image_folder).as_posix()) for name, path in images.items()
    }
    tag_file = _tag_file(root, config.tags)
    if tag_file is None:
        rows = folder_tags(paths.values())
        tags: TagTable = {name: rows[path] for name, path in paths.items()}
    else:
        prefix = (
            image_folder.relative_to(root).as_posix() + "/"
            if image_folder.is_relative_to(root)
            else ""
        )
        tags, unmatched = _match(read_tags(tag_file), paths, prefix, tag_file)
        problems += unmatched
    where = str(tag_file or root)
    if not any(tags.values()):
        problems.append(f"{where}: no image has a tag")
    found = find_masks(masks) if masks else {}
    return DatasetIndex(
        where=where,
        images=images,
        tags=tags,
        masks={name: path for name, path in found.items() if name in images},
        mask_classes=read_class_names(masks) if masks else (),
        problems=tuple(problems),
    )


def _chosen_folder(root: Path, chosen: Path | None, default: str) -> Path | None:
    """Return the folder that the config names, or the default one if it exists."""
    folder = root / (chosen or default)
    if folder.is_dir():
        return folder
    if chosen is not None:
        raise DataError(f"{folder}: no such folder (data.{default})")
    return None


def _tag_file(root: Path, chosen: Path | None) -> Path | None:
    """Return the tag file that the config names or that stands in root; None: class folders."""
    if chosen is not None:
        return root / chosen
    found = [root / name for name in TAG_FILES if (root / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{root}: has {' and '.join(TAG_FILES)}; choose one with data.tags")
    return found[0] if found else None


def _match(
    rows: TagTable, paths: Mapping[str, str], prefix: str, tag_file: Path
) -> tuple[TagTable, list[str]]:
    """Bring rows and images together.

    A row may name an image from the image folder or from root, with or without suffix.

    Returns:
        Name -> tags, and a line each for rows without image, doubled rows, images without row.
    """
    lookup = {path: name for name, path in paths.items()}
    for name, path in paths.items():
        for other in (name, prefix + path, prefix + name):
            lookup.setdefault(other, name)
    tags: dict[str, tuple[str, ...]] = {}
    strangers, doubled = [], []
    for row, row_tags in rows.items():
        name_found = lookup.get(row)
        if name_found is None:
            strangers.append(row)
        elif name_found in tags:
            doubled.append(row)
        else:
            tags[name_found] = row_tags
    missing = [path for name, path in paths.items() if name not in tags]
    problems = []
    if strangers:
        problems.append(
            f"{tag_file}: {count(len(strangers), 'row')} without image: {name_some(strangers)}"
        )
    if doubled:
        problems.append(f"{tag_file}: images with two rows: {name_some(doubled)}; keep one of each")
    if missing:
        problems.append(
            f"{tag_file}: {count(len(missing), 'image')} without row: {name_some(missing)}; a "
            f"image that shows no class gets the row '{missing[0]},'"
        )
    return tags, problems
