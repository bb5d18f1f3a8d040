"""Data in PASCAL VOC layout: JPEGImages, lists in ImageSets/Segmentation, XML or `tags.csv`.

If every image of a list has a mask, masks come from `SegmentationClass`, or else from
`SegmentationClassAug`. The former contains the official masks, which published scores on the list
`train` use. A data set with other classes lists them in `classes.json` in root, in the order of the
mask values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.data.index import DatasetIndex, count, find_masks, name_images
from tag2mask.data.indexed import IndexedDataset, existing_root, resolve_known_classes
from tag2mask.data.layout import VOC_IMAGES, layout_hint, voc_folder
from tag2mask.data.tags import (
    TagTable,
    annotation_tags,
    image_key,
    name_some,
    read_tag_file,
    unknown_tags,
)
from tag2mask.errors import DataError, NothingHeldOutError, did_you_mean
from tag2mask.io.mask_folder import read_class_names
from tag2mask.io.text_files import read_text

# Alphabetical; index + 1 is the pixel value in the official masks.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
IMAGE_FOLDER = VOC_IMAGES
LIST_FOLDER = Path("ImageSets", "Segmentation")
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
TAG_FILE = "tags.csv"


class VOCConfig(DataConfig):
    """Settings of the VOC layout."""

    split: str = "train_aug"
    """List of training images: the name of a file in ImageSets/Segmentation, without .txt, or the
    path of a text file elsewhere, including its folder."""
    val_split: str | None = None
    """List of held-out images; `none` holds out no image."""


class VOC(IndexedDataset, Source):
    """Images of one list of a folder in VOC layout.

    Args:
        config: Settings; without `classes` every class in the training list is learned.
        split: "train" and "val" mean the config's `split` and `val_split`. Any other text is the
            name of a list, and so is any text that ends in `.txt`: `train.txt` is the list `train`.
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
        self._hold(dataset_index, classes, dataset_index.images, learned=learned, config=config)


def voc_root(root: Path | None) -> Path:
    """Return the folder that contains JPEGImages: `root`, or VOC2012 inside it.

    Raises:
        DataError: If `root` is not set, missing, or not in VOC layout.
    """
    root = existing_root(root)
    folder = voc_folder(root)
    if folder is None:
        raise DataError(
            f"{root}: not in VOC layout: there is no folder {IMAGE_FOLDER}"
            f"{layout_hint(root, 'voc')}"
        )
    return folder


def voc_lists(root: Path) -> list[str]:
    """Return the names of the lists in ImageSets/Segmentation, sorted."""
    return sorted(path.stem for path in (root / LIST_FOLDER).glob("*.txt"))


def list_path(root: Path, name: str) -> Path:
    """Return the file of a list: `name` itself if it contains a folder, else one of `root`."""
    path = Path(f"{name.removesuffix('.txt')}.txt")
    return path if len(path.parts) > 1 else root / LIST_FOLDER / path


def read_list(root: Path, name: str) -> tuple[str, ...]:
    """Read the image names of one list.

    Raises:
        DataError: If the list is missing (with a suggestion), unreadable, empty, or contains an
            image twice.
    """
    path = list_path(root, name)
    if not path.is_file():
        known = voc_lists(root)
        raise DataError(
            f"{path}: no such list.{did_you_mean(name, known)} Known: {', '.join(known) or 'none'}"
        )
    lines = read_text(path, DataError).splitlines()
    names = listed_images(lines)
    if not names:
        raise DataError(f"{path}: the list is empty; write one image name per line")
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise DataError(f"{path}: images listed twice: {name_some(repeated)}; keep one of each")
    return tuple(names)


def listed_images(lines: Iterable[str]) -> list[str]:
    """Return the image names in the lines of a list, in order.

    The first column counts: an image name, or the path of an image as in the lists that PSA, SEAM
    and AEFT ship (`/JPEGImages/X.jpg /SegmentationClassAug/X.png`). The second column is not read:
    a class flag (1, 0, -1) in lists of single classes, the path of a mask in the shipped ones.
    """
    columns = [image_key(line.split()[0]) for line in lines if line.strip()]
    paths = [column.rpartition(f"{IMAGE_FOLDER}/") for column in columns]
    return [Path(name).with_suffix("").as_posix() if folder else name for _, folder, name in paths]


def index_voc(root: Path, lists: Sequence[str]) -> DatasetIndex:
    """Find the images of some lists, with their tags and masks.

    Raises:
        DataError: If a list, the tag file or an annotation is missing or unreadable.
    """
    where = f"{root / LIST_FOLDER}: {' + '.join(lists)}"
    listed = list(dict.fromkeys(name for split in lists for name in read_list(root, split)))
    images, problems = name_images(root / IMAGE_FOLDER)
    missing = [name for name in listed if name not in images]
    if missing:
        problems.append(
            f"{where}: {count(len(missing), 'image')} not in {IMAGE_FOLDER}: {name_some(missing)}; "
            "add the images, or remove them from the list"
        )
    names = [name for name in listed if name in images]
    own_classes = read_class_names(root)
    classes = own_classes or VOC_CLASSES
    tags, groups, tag_problems = _read_tag_rows(root, names, own_classes)
    return DatasetIndex(
        where=where,
        images={name: images[name] for name in names},
        tags=tags,
        masks=_find_list_masks(root, names),
        mask_classes=classes,
        groups=groups,
        problems=(*problems, *tag_problems),
    )


def _list_name(config: VOCConfig, split: str) -> str:
    """Resolve "train", "val" or the name of a list."""
    if split == "val" and config.val_split is None:
        raise NothingHeldOutError(
            "no image is held out; set data.val_split to a list in ImageSets/Segmentation"
        )
    parts = {"train": config.split, "val": config.val_split or ""}
    return parts.get(split, split.removesuffix(".txt"))


def _read_tag_rows(
    root: Path, names: Sequence[str], own_classes: Sequence[str]
) -> tuple[TagTable, Mapping[str, str], list[str]]:
    """Read the tags and groups of some images from `tags.csv`, or tags from the annotations.

    Args:
        root: The folder that contains JPEGImages.
        names: Images to find.
        own_classes: Classes of `classes.json`; empty: VOC's.

    Returns:
        Name -> tags, name -> group, and one line per problem.
    """
    path = root / TAG_FILE
    classes = own_classes or VOC_CLASSES
    if not path.is_file():
        folder = root / "Annotations"
        return {name: annotation_tags(folder / f"{name}.xml", classes) for name in names}, {}, []
    written = read_tag_file(path)
    rows = {Path(name).with_suffix("").as_posix(): row for name, row in written.tags.items()}
    groups = {
        Path(name).with_suffix("").as_posix(): group for name, group in written.groups.items()
    }
    problems = []
    missing = [name for name in names if name not in rows]
    if missing:
        problems.append(
            f"{path}: {count(len(missing), 'image')} without row: {name_some(missing)}; add a row "
            f"for each, '{missing[0]}.jpg,' if it shows no class"
        )
    tags = {name: rows[name] for name in names if name in rows}
    problems += unknown_tags(path, tags, classes, assumed="" if own_classes else "VOC's 20")
    return tags, {name: groups[name] for name in names if name in groups}, problems


def _find_list_masks(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the masks of the folder that has the most of them; official masks win a tie."""
    best: dict[str, Path] = {}
    for folder in MASK_FOLDERS:
        files = find_masks(root / folder)
        masks = {name: files[name] for name in names if name in files}
        best = masks if len(masks) > len(best) else best
    return best
