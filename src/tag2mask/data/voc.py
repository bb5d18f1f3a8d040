"""Data in PASCAL VOC layout: JPEGImages, ImageSets/Segmentation lists, XML or `tags.csv`.

Masks, where a list has them all, come from `SegmentationClass` or else `SegmentationClassAug`; the
first holds the official ones, which published scores on the list `train` are measured against. Data
with classes of their own name them in `classes.json` in root, in the order of the mask values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.data.index import DatasetIndex, count, find_masks, name_images
from tag2mask.data.indexed import IndexedDataset, existing_root, resolve_known_classes
from tag2mask.data.tags import (
    TagTable,
    annotation_tags,
    image_key,
    name_some,
    read_tags,
)
from tag2mask.errors import DataError, NothingHeldOutError, did_you_mean
from tag2mask.io.mask_folder import read_class_names

# Alphabetical; position + 1 is the pixel value in official masks.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
IMAGE_FOLDER = "JPEGImages"
LIST_FOLDER = Path("ImageSets", "Segmentation")
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
TAG_FILE = "tags.csv"


class VOCConfig(DataConfig):
    """Settings of the VOC layout."""

    split: str = "train_aug"
    """List of the images to learn from: a file name in ImageSets/Segmentation, without .txt, or the
    path of a text file elsewhere, with its folder."""
    val_split: str | None = None
    """List of held-out images; none: nothing is held out."""


class VOC(IndexedDataset, Source):
    """Images of one list of a folder in VOC layout.

    Args:
        config: Settings; `classes` empty means every class that the training list shows.
        split: "train" and "val" stand for the config's `split` and `val_split`; any other text is
            the name of a list, and one that ends in `.txt` always is: `train.txt` is the list
            `train`.
    """

    Config: ClassVar[type[DataConfig]] = VOCConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        if not isinstance(config, VOCConfig):
            raise TypeError(f"VOC needs a VOCConfig, got {type(config).__name__}")
        root = voc_root(config.root)
        chosen = _list_name(config, split)
        learned = chosen == config.split
        dataset_index = index_voc(root, [chosen])
        dataset_index.reject_problems()
        classes = resolve_known_classes(
            config.classes,
            dataset_index,
            lambda: dataset_index if learned else index_voc(root, [config.split]),
        )
        self._hold(
            dataset_index, classes, dataset_index.images, learned=learned, strict=config.strict
        )


def voc_root(root: Path | None) -> Path:
    """Return the folder that holds JPEGImages: `root`, or VOC2012 inside it.

    Raises:
        DataError: If `root` is not set, missing, or not in VOC layout.
    """
    root = existing_root(root)
    for place in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (place / IMAGE_FOLDER).is_dir():
            return place
    raise DataError(f"{root}: is not in VOC layout, it has no folder {IMAGE_FOLDER}")


def voc_lists(root: Path) -> list[str]:
    """Names of the lists in ImageSets/Segmentation, sorted."""
    return sorted(path.stem for path in (root / LIST_FOLDER).glob("*.txt"))


def list_path(root: Path, name: str) -> Path:
    """Find a list by its name or, if it has a folder in it, as a path of its own."""
    own = Path(f"{name.removesuffix('.txt')}.txt")
    return own if len(own.parts) > 1 else root / LIST_FOLDER / own


def read_list(root: Path, name: str) -> tuple[str, ...]:
    """Read the image names of one list.

    Raises:
        DataError: If the list is missing (with a hint), unreadable, empty or names an image twice.
    """
    path = list_path(root, name)
    if not path.is_file():
        known = voc_lists(root)
        raise DataError(
            f"{path}: no such list.{did_you_mean(name, known)} Known: {', '.join(known) or 'none'}"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    # Lists of single classes carry a second column (1, 0, -1); the name is the first.
    names = [image_key(line.split()[0]) for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: the list is empty")
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise DataError(f"{path}: names images twice: {name_some(doubled)}")
    return tuple(names)


def index_voc(root: Path, lists: Sequence[str]) -> DatasetIndex:
    """Look at the images of some lists, with their tags and masks.

    Raises:
        DataError: If a list, the tag file or an annotation is missing or unreadable.
    """
    where = f"{root / LIST_FOLDER}: {' + '.join(lists)}"
    listed = list(dict.fromkeys(name for chosen in lists for name in read_list(root, chosen)))
    present, problems = name_images(root / IMAGE_FOLDER)
    absent = [name for name in listed if name not in present]
    if absent:
        problems.append(
            f"{where}: {count(len(absent), 'image')} not in {IMAGE_FOLDER}: {name_some(absent)}"
        )
    names = [name for name in listed if name in present]
    classes = read_class_names(root) or VOC_CLASSES
    tags, unmatched = _read_table(root, names, classes)
    return DatasetIndex(
        where=where,
        images={name: present[name] for name in names},
        tags=tags,
        masks=_masks_of(root, names),
        mask_classes=classes,
        problems=(*problems, *unmatched),
    )


def _list_name(config: VOCConfig, split: str) -> str:
    """Resolve "train", "val" or a list's own name."""
    if split == "val" and config.val_split is None:
        raise NothingHeldOutError("nothing is held out: set data.val_split to a list of ImageSets")
    parts = {"train": config.split, "val": config.val_split or ""}
    return parts.get(split, split.removesuffix(".txt"))


def _read_table(
    root: Path, names: Sequence[str], classes: Sequence[str]
) -> tuple[TagTable, list[str]]:
    """Read the tags of the named images from `tags.csv`, or from the annotations without it."""
    path = root / TAG_FILE
    if not path.is_file():
        notes = root / "Annotations"
        return {name: annotation_tags(notes / f"{name}.xml", classes) for name in names}, []
    rows = {Path(name).with_suffix("").as_posix(): tags for name, tags in read_tags(path).items()}
    problems = []
    missing = [name for name in names if name not in rows]
    if missing:
        problems.append(
            f"{path}: {count(len(missing), 'image')} without row: {name_some(missing)}; an image "
            f"that shows no class gets the row '{missing[0]}.jpg,'"
        )
    tags = {name: rows[name] for name in names if name in rows}
    for tag in sorted({tag for row in tags.values() for tag in row} - set(classes)):
        holders = [name for name, row in tags.items() if tag in row]
        problems.append(
            f"{path}: unknown class '{tag}' of {name_some(holders)}.{did_you_mean(tag, classes)}"
        )
    return tags, problems


def _masks_of(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the masks of the mask folder that has most of them, the official one first."""
    best: dict[str, Path] = {}
    for folder in MASK_FOLDERS:
        found = find_masks(root / folder)
        own = {name: found[name] for name in names if name in found}
        best = own if len(own) > len(best) else best
    return best
