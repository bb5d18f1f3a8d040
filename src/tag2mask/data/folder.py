"""Your own data: a folder of images with a tag file, or with one folder per class.

```
DATA/tags.csv              image,tags          DATA/cat/a.jpg        the folder is the tag
DATA/images/a.jpg          a.jpg,cat;dog       DATA/dog/b.jpg
DATA/images/b.jpg          b.jpg,              DATA/_negative/c.jpg  shows no class
DATA/masks/a.png           (optional, also for some images only: class indices as PNG)
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
    """Settings of a folder of tagged images; relative paths start at `root`."""

    tags: Path | None = None
    """CSV or JSON Lines file. `none` uses tags.csv or tags.jsonl in root, or else class folders."""
    images: Path | None = None
    """Folder of the images. `none` uses `images` in root if it exists, or else root itself."""
    masks: Path | None = None
    """Folder of true masks, for all images or some. `none` uses `masks` in root if it exists."""
    val_fraction: Fraction = 0.1
    """Fraction of images held out. The choice depends on an image's name alone, so adding images
    changes no other image's part."""


class Folder(IndexedDataset, Source):
    """Tagged images of a folder.

    Args:
        config: Settings; without `classes` every tag in use is a class, sorted.
        split: "train", "val" (the held-out fraction) or "all".
    """

    Config: ClassVar[type[DataConfig]] = FolderConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        if not isinstance(config, FolderConfig):
            raise TypeError(f"Folder needs a FolderConfig, got {type(config).__name__}")
        if split not in PARTS:
            raise DataError(f"unknown part '{split}' of a folder; its parts are {', '.join(PARTS)}")
        dataset_index = index_folder(config)
        dataset_index.reject_problems()
        # Images to label need not show every class of the network.
        known = dataset_index.tag_names
        if split != "train":
            known = (*config.classes, *known)
        classes = resolve_classes(config.classes, tuple(dict.fromkeys(known)), dataset_index.where)
        part = [
            name
            for name in dataset_index.images
            if split == "all" or is_held_out(name, config.val_fraction) == (split == "val")
        ]
        if not part:
            kind = NothingHeldOutError if split == "val" else DataError
            raise kind(
                f"{dataset_index.where}: part '{split}' is empty "
                f"({count(len(dataset_index.images), 'image')} in all); change "
                f"data.val_fraction (now {config.val_fraction:g})"
            )
        self._hold(dataset_index, classes, part, learned=split == "train", strict=config.strict)


def is_held_out(name: str, fraction: float) -> bool:
    """Return whether the image of this name is held out; independent of all other images."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def index_folder(config: FolderConfig) -> DatasetIndex:
    """Find the images, tags and masks of a folder and match them.

    Raises:
        DataError: If a folder or tag file is missing or unreadable, or there is no image. All other
            problems are in the `problems` of the index.
    """
    root = existing_root(config.root)
    image_folder = _chosen_folder(root, config.images, "images") or root
    masks = _chosen_folder(root, config.masks, "masks")
    images, problems = name_images(image_folder, leave_out=masks)
    if not images:
        raise DataError(
            f"{image_folder}: contains no images (JPEG, PNG, TIFF, WebP, BMP or GIF); check "
            "data.root and data.images"
        )
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
        tags, row_problems = _match_rows(read_tags(tag_file), paths, prefix, tag_file)
        problems += row_problems
    where = str(tag_file or root)
    if not any(tags.values()):
        problems.append(f"{where}: no image has a tag")
    mask_files = find_masks(masks) if masks else {}
    if stray := sorted(mask_files.keys() - images.keys()):
        problems.append(
            f"{masks}: {count(len(stray), 'mask')} of images that are not in {image_folder}: "
            f"{name_some(stray)}; name each mask like its image, or remove it"
        )
    return DatasetIndex(
        where=where,
        images=images,
        tags=tags,
        masks={name: path for name, path in mask_files.items() if name in images},
        mask_classes=read_class_names(masks) if masks else (),
        problems=tuple(problems),
    )


def _chosen_folder(root: Path, chosen: Path | None, default: str) -> Path | None:
    """Return the folder in the config, or the default folder if it exists."""
    folder = root / (chosen or default)
    if folder.is_dir():
        return folder
    if chosen is not None:
        raise DataError(f"{folder}: no such folder (data.{default})")
    return None


def _tag_file(root: Path, chosen: Path | None) -> Path | None:
    """Return the tag file in the config or in root; None: tags come from class folders."""
    if chosen is not None:
        return root / chosen
    existing = [root / name for name in TAG_FILES if (root / name).is_file()]
    if len(existing) > 1:
        raise DataError(
            f"{root}: contains both {' and '.join(TAG_FILES)}; select one with data.tags"
        )
    return existing[0] if existing else None


def _match_rows(
    rows: TagTable, paths: Mapping[str, str], prefix: str, tag_file: Path
) -> tuple[TagTable, list[str]]:
    """Match the rows of a tag file with images.

    A row may name an image relative to the image folder or to root, with or without suffix.

    Returns:
        Name -> tags, and one line each for rows without image, repeated rows and images without
        row.
    """
    lookup = {path: name for name, path in paths.items()}
    for name, path in paths.items():
        for other in (name, prefix + path, prefix + name):
            lookup.setdefault(other, name)
    tags: dict[str, tuple[str, ...]] = {}
    unknown, repeated = [], []
    for row, row_tags in rows.items():
        image_name = lookup.get(row)
        if image_name is None:
            unknown.append(row)
        elif image_name in tags:
            repeated.append(row)
        else:
            tags[image_name] = row_tags
    missing = [path for name, path in paths.items() if name not in tags]
    problems = []
    if unknown:
        problems.append(
            f"{tag_file}: {count(len(unknown), 'row')} without image: {name_some(unknown)}; add "
            "the images, or remove the rows"
        )
    if repeated:
        problems.append(
            f"{tag_file}: images with two rows: {name_some(repeated)}; keep only one of each"
        )
    if missing:
        problems.append(
            f"{tag_file}: {count(len(missing), 'image')} without row: {name_some(missing)}; add a "
            f"row for each, '{missing[0]},' if it shows no class"
        )
    return tags, problems
