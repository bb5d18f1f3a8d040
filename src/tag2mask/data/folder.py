"""Your own data: a folder of images with a tag file, or with one folder per class.

```
DATA/tags.csv              image,tags          DATA/cat/a.jpg        the folder is the tag
DATA/images/a.jpg          a.jpg,cat;dog       DATA/dog/b.jpg
DATA/images/b.jpg          b.jpg,              DATA/cat+dog/c.jpg    shows both
DATA/masks/a.png           (some or all)       DATA/_negative/d.jpg  shows no class
```

Masks hold class indices in a palette or gray PNG. An image that stands in several class folders is
one image with all their tags. A column `group` of the tag file names what images share, such as a
plot or a patient: all images of a group are learned from, or all are held out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from tag2mask.config.schema import DataConfig, Fraction
from tag2mask.data.base import Source
from tag2mask.data.class_folders import class_folder_problems, merge_tags, tag_file_hint
from tag2mask.data.index import DatasetIndex, count, find_masks, name_images
from tag2mask.data.indexed import IndexedDataset, existing_root
from tag2mask.data.layout import layout_hint
from tag2mask.data.tag_rows import joined_tags, match_rows
from tag2mask.data.tags import (
    folder_tags,
    image_key,
    name_some,
    read_tag_file,
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
    """Fraction of images held out. The choice depends on an image's name alone, or on its group,
    so adding images changes no other image's part."""


class Folder(IndexedDataset, Source):
    """Tagged images of a folder.

    Args:
        config: Settings; without `classes` every tag of a training image is a class, sorted.
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
        names = {
            part: part_names(dataset_index, part, config.val_fraction) for part in (split, "train")
        }
        known = dataset_index.tag_names
        if not config.classes and names["train"]:
            known = dataset_index.tags_of(names["train"])
        elif split != "train":  # images to label need not show every class of the network
            known = (*config.classes, *known)
        classes = resolve_classes(config.classes, tuple(dict.fromkeys(known)), dataset_index.where)
        part = names[split]
        if not part:
            kind = NothingHeldOutError if split == "val" else DataError
            raise kind(
                f"{dataset_index.where}: part '{split}' is empty "
                f"({count(len(dataset_index.images), 'image')} in all); change "
                f"data.val_fraction (now {config.val_fraction:g})"
            )
        self._hold(dataset_index, classes, part, learned=split == "train", config=config)


def part_names(dataset_index: DatasetIndex, part: str, val_fraction: float) -> list[str]:
    """Return the names of the images of "train", "val" or "all", in the order of the index."""
    return [
        name
        for name in dataset_index.images
        if part == "all"
        or is_held_out(dataset_index.groups.get(name, name), val_fraction) == (part == "val")
    ]


def is_held_out(name: str, fraction: float) -> bool:
    """Return whether the image or group of this name is held out; independent of all others."""
    return holdout_point(name) < fraction


def holdout_point(name: str) -> float:
    """Return the fraction in [0, 1) above which an image or group of this name is held out."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def index_folder(config: FolderConfig) -> DatasetIndex:
    """Find the images, tags and masks of a folder and match them.

    Raises:
        DataError: If a folder or tag file is missing or unreadable, or there is no image. All other
            problems are in the `problems` of the index.
    """
    root = existing_root(config.root)
    image_folder = _chosen_folder(root, config.images, "images") or root
    masks = _chosen_folder(root, config.masks, "masks")
    tag_file = _tag_file(root, config.tags)
    if tag_file is None and (hint := layout_hint(root, "folder")):
        raise DataError(f"{root}: no {' or '.join(TAG_FILES)}{hint}")
    images, problems = name_images(image_folder, leave_out=masks)
    if not images:
        raise DataError(
            f"{image_folder}: contains no images (JPEG, PNG, TIFF, WebP, BMP, GIF, AVIF or HEIC); "
            "check data.root and data.images"
        )
    paths = {
        name: image_key(path.relative_to(image_folder).as_posix()) for name, path in images.items()
    }
    merged: dict[str, tuple[Path, ...]] = {}
    groups: dict[str, str] = {}
    if tag_file is None:
        problems += class_folder_problems(image_folder, paths.values())
        rows = folder_tags(paths.values(), tag_file_hint(root))
        images, tags, merged = merge_tags(
            images, {name: rows[path] for name, path in paths.items()}
        )
    else:
        inside = image_folder.is_relative_to(root)
        prefix = f"{image_folder.relative_to(root).as_posix()}/" if inside else ""
        written = read_tag_file(tag_file)
        matched = match_rows(written.tags, paths, prefix)
        tags = {name: written.tags[row] for name, row in matched.rows.items()}
        groups = {
            name: written.groups[row] for name, row in matched.rows.items() if row in written.groups
        }
        problems += [f"{tag_file}: {line}" for line in (*matched.problems, *joined_tags(tags))]
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
        groups=groups,
        merged=merged,
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
