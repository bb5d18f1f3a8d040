"""Data in PASCAL VOC layout: JPEGImages, ImageSets/Segmentation lists, XML annotations or `tags.csv`.

Masks, where a list has them all, come from `SegmentationClass` or else `SegmentationClassAug`; the first
holds the official ones, which published scores on the list `train` are measured against.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tag2mask.data.base import Source
from tag2mask.data.photo import find_unreadable, read_mask, read_photo, renumber
from tag2mask.data.tags import (
    annotation_tags,
    choose_classes,
    name_some,
    photo_key,
    read_tags,
    refuse_empty_classes,
    tag_matrix,
)
from tag2mask.errors import DataError, did_you_mean
from tag2mask.recipe import DataConfig
from tag2mask.types import Sample

# Alphabetical; position + 1 is the pixel value in official masks.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
PHOTO_FOLDER = "JPEGImages"
LIST_FOLDER = Path("ImageSets", "Segmentation")
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")


class VOCConfig(DataConfig):
    """Settings of the VOC layout."""

    split: str = "train_aug"
    """List of the photos to learn from: a file name in ImageSets/Segmentation, without .txt."""
    val_split: str | None = None
    """List of held-out photos; none: nothing is held out."""


class VOC(Source):
    """Photos of one list of a folder in VOC layout.

    Args:
        config: Settings; `classes` empty means every class that the training list shows.
        split: "train" and "val" stand for the config's `split` and `val_split`; any other text is the
            name of a list. With the ending `.txt` it always is (`train.txt` is the list `train`).
    """

    Config: ClassVar[type[DataConfig]] = VOCConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        if not isinstance(config, VOCConfig):
            raise TypeError(f"VOC needs a VOCConfig, got {type(config).__name__}")
        self._root = voc_root(config.root)
        chosen_list = _list_name(config, split)
        names = _read_list(self._root, chosen_list)
        table = _read_table(self._root, names)
        where = f"{self._root}: list '{chosen_list}'"
        self.class_names = choose_classes(
            config.classes or _shown(self._root, config.split), VOC_CLASSES, where
        )
        photos = [self._photo(name) for name in names]
        unreadable = find_unreadable(photos, thorough=config.strict)
        if unreadable and config.strict:
            raise DataError(f"{where}: {len(unreadable)} unreadable photos: {_reasons(unreadable)}")
        self.skipped = tuple(path.stem for path in unreadable)
        self.names = tuple(name for name in names if self._photo(name) not in unreadable)
        if not self.names:
            raise DataError(f"{where}: no photo can be read: {_reasons(unreadable)}")
        self.tags = tag_matrix((table[name] for name in self.names), self.class_names)
        if chosen_list == config.split:
            refuse_empty_classes(self.tags, self.class_names, where)
        self._masks = _mask_folder(self._root, self.names)
        self.has_masks = self._masks is not None
        self._renumber = renumber(VOC_CLASSES, self.class_names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image = read_photo(self._photo(name))
        mask = None
        if self._masks is not None:
            path = self._masks / f"{name}.png"
            mask = self._renumber[read_mask(path, len(VOC_CLASSES), image.shape[:2])]
        return Sample(name, image, self.tags[index], mask)

    def _photo(self, name: str) -> Path:
        return self._root / PHOTO_FOLDER / f"{name}.jpg"


def voc_root(root: Path | None) -> Path:
    """Return the folder that holds JPEGImages: `root`, or VOC2012 inside it.

    Raises:
        DataError: If `root` is not set, missing, or not in VOC layout.
    """
    if root is None:
        raise DataError("data.root is not set: add --data.root DIR")
    root = root.expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder (data.root)")
    for place in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (place / PHOTO_FOLDER).is_dir():
            return place
    raise DataError(f"{root}: is not in VOC layout, it has no folder {PHOTO_FOLDER}")


def voc_lists(root: Path) -> list[str]:
    """Names of the lists in ImageSets/Segmentation, sorted."""
    return sorted(path.stem for path in (root / LIST_FOLDER).glob("*.txt"))


def _list_name(config: VOCConfig, split: str) -> str:
    """Resolve "train", "val" or a list's own name."""
    if split == "val" and config.val_split is None:
        raise DataError("no photos are held out: set data.val_split to a list of ImageSets")
    parts = {"train": config.split, "val": config.val_split or ""}
    return parts.get(split, split.removesuffix(".txt"))


def _read_list(root: Path, name: str) -> list[str]:
    """Read a list and make sure that its photos exist."""
    path = root / LIST_FOLDER / f"{name}.txt"
    if not path.is_file():
        known = voc_lists(root)
        raise DataError(
            f"{path}: no such list.{did_you_mean(name, known)} Known: {', '.join(known) or 'none'}"
        )
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    names = [photo_key(line.split()[0]) for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: the list is empty")
    if len(set(names)) < len(names):
        doubled = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{path}: names photos twice: {name_some(doubled)}")
    present = {photo.stem for photo in (root / PHOTO_FOLDER).glob("*.jpg")}
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} photos are not in {root / PHOTO_FOLDER}: {name_some(missing)}"
        )
    return names


def _read_table(root: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read the tags of the named photos from `tags.csv` where it exists, else from the annotations."""
    path = root / "tags.csv"
    if not path.is_file():
        return {
            name: annotation_tags(root / "Annotations" / f"{name}.xml", VOC_CLASSES)
            for name in names
        }
    rows = {Path(name).stem: tags for name, tags in read_tags(path).items()}
    missing = [name for name in names if name not in rows]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} photos have no row: {name_some(missing)}; "
            f"a photo without any class gets the row '{missing[0]}.jpg,'"
        )
    for name in names:
        for tag in rows[name]:
            if tag not in VOC_CLASSES:
                raise DataError(
                    f"{path}: row '{name}': unknown class '{tag}'.{did_you_mean(tag, VOC_CLASSES)}"
                )
    return {name: rows[name] for name in names}


def _shown(root: Path, training_list: str) -> tuple[str, ...]:
    """Classes that the training list's photos show, in VOC order."""
    table = _read_table(root, _read_list(root, training_list))
    shown = {tag for tags in table.values() for tag in tags}
    return tuple(name for name in VOC_CLASSES if name in shown)


def _mask_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first mask folder that has a mask for every name, or None."""
    for folder in MASK_FOLDERS:
        present = {path.stem for path in (root / folder).glob("*.png")}
        if present.issuperset(names):
            return root / folder
    return None


def _reasons(unreadable: dict[Path, str]) -> str:
    """Return the first unreadable photos with their reasons."""
    return name_some([f"{path.name} ({why})" for path, why in unreadable.items()])
