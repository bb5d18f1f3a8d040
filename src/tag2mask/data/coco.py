"""COCO 2014, and any data in COCO format: tags and masks from an instances JSON.

```
DATA/annotations/instances_train2014.json      DATA/train/_annotations.coco.json
DATA/train2014/COCO_train2014_000000000009.jpg DATA/train/a.jpg
```

Folders of images may also stand in `images` or `JPEGImages`, with or without the year, and images
may be called by COCO's 12 digits alone. Without a JSON, the VOC-style layout of published code is
read: `JPEGImages/train`, `SegmentationClass/train`, and `tags.csv`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image as PILImage

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.data.coco_annotations import COCOAnnotations, read_annotations
from tag2mask.data.index import DatasetIndex, count, find_masks, name_images
from tag2mask.data.indexed import IndexedDataset, existing_root, resolve_known_classes
from tag2mask.data.layout import coco_splits, layout_hint
from tag2mask.data.tags import (
    image_key,
    name_some,
    read_tags,
    unknown_tags,
)
from tag2mask.errors import DataError, NothingHeldOutError, did_you_mean
from tag2mask.io.heif import open_image
from tag2mask.io.images import PILLOW_ERRORS, one_line
from tag2mask.io.mask_folder import read_class_names
from tag2mask.types import IGNORE, Mask

# By rank of the ids 1 to 90; position + 1 is the pixel value in the masks of published code.
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
IMAGE_FOLDER = "JPEGImages"
MASK_FOLDER = "SegmentationClass"
TAG_FILE = "tags.csv"
_JSON_NAMES = (
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",
    "instances_{}.json",
    "{}.json",
)
_IMAGE_FOLDERS = ("{}", "images/{}", f"{IMAGE_FOLDER}/{{}}")
_YEAR = re.compile(r"(?<=\D)\d{4}$")
_NUMBERED = re.compile(r"(?:.*_)?(\d{12})")
_TURNED = {
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}
"""EXIF orientation that swaps the sides -> what makes the picture upright."""
_ORIENTATION = 0x0112


class COCOConfig(DataConfig):
    """Settings of data in COCO format."""

    split: str = "train2014"
    """Images to learn from: the name in `annotations/instances_NAME.json`, or the path of a JSON
    within root."""
    val_split: str | None = None
    """Held-out images, likewise; none: nothing is held out."""
    images: Path | None = None
    """Folder of the images within root, for all splits; none: it is looked for by the split."""
    keep_empty: bool = False
    """Learn from images without any annotation, too; the published lists leave them out."""


class COCO(IndexedDataset, Source):
    """Images of one instances file.

    Masks have no ignored pixels but those of classes that are not chosen: crowds are background, as
    in the masks of published code, but count as tags.

    Args:
        config: Settings; `classes` empty means every class that the training split shows.
        split: "train" and "val" stand for the config's `split` and `val_split`; any other text is
            a split by its own name.

    Source:
        Specification 5.3.
    """

    Config: ClassVar[type[DataConfig]] = COCOConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        if not isinstance(config, COCOConfig):
            raise TypeError(f"COCO needs a COCOConfig, got {type(config).__name__}")
        if split == "val" and config.val_split is None:
            raise NothingHeldOutError("nothing is held out: set data.val_split to a split")
        chosen = {"train": config.split, "val": config.val_split or ""}.get(split, split)
        learned = chosen == config.split
        dataset_index = index_coco(config, chosen)
        dataset_index.reject_problems()
        classes = resolve_known_classes(
            config.classes,
            dataset_index,
            lambda: dataset_index if learned else index_coco(config, config.split),
        )
        self._hold(dataset_index, classes, dataset_index.images, learned=learned, config=config)


@dataclass(frozen=True, slots=True)
class AnnotationMasks:
    """Draws masks by name, turned as the images are."""

    annotations: COCOAnnotations
    index: Mapping[str, int]
    """Name -> position among the annotated images."""
    images: Mapping[str, Path]

    def __call__(self, name: str) -> Mask:
        """Draw one mask.

        Annotations are drawn on the image upright, or as its pixels are stored; which, the stated
        size tells where the sides are swapped.

        Raises:
            DataError: If the image cannot be opened, or has another size than the file states.
        """
        height, width = self.annotations.sizes[self.index[name]]
        path = self.images[name]
        try:
            with open_image(path) as picture:
                stored = picture.size
                swap = _TURNED.get(picture.getexif().get(_ORIENTATION, 1))
        except PILLOW_ERRORS as error:
            raise DataError(f"{path}: cannot be read as an image ({one_line(error)})") from error
        upright = stored if swap is None else stored[::-1]
        if (width, height) not in (stored, upright):
            raise DataError(
                f"{path}: the image is {upright[0]}x{upright[1]} px, but {width}x{height} px by "
                f"{self.annotations.path}"
            )
        mask = self.annotations.mask(self.index[name])
        if swap is not None and (width, height) == stored and stored != upright:
            return np.array(PILImage.fromarray(mask).transpose(swap))
        return mask


def index_coco(config: COCOConfig, split: str) -> DatasetIndex:
    """Index the images of one split, with their tags and masks.

    Raises:
        DataError: If the instances file or the images are missing or cannot be used.
    """
    root = existing_root(config.root)
    path = _instances_path(root, split)
    if path is None:
        return _index_layout(root, split, config)
    annotations = read_annotations(path)
    folder = _image_folder(root, path, split, config.images)
    return _match_images(annotations, folder, keep_empty=config.keep_empty)


def _match_images(annotations: COCOAnnotations, folder: Path, *, keep_empty: bool) -> DatasetIndex:
    """Match the images of an annotation file with the files of a folder.

    Raises:
        DataError: If the folder is missing.
    """
    present, problems = name_images(folder)
    find = _finder(present)
    annotated = annotations.annotated
    index: dict[str, int] = {}
    absent = []
    for position, written in enumerate(annotations.file_names):
        if not annotated[position] and not keep_empty:
            continue
        name = find(written)
        if name is None:
            absent.append(written)
        elif name in index:
            problems.append(f"{annotations.path}: two images have the image {present[name]}")
        else:
            index[name] = position
    if absent:
        problems.append(
            f"{annotations.path}: {count(len(absent), 'image')} not in {folder}: "
            f"{name_some(absent)}"
        )
    images = {name: present[name] for name in index}
    paintable = annotations.has_shapes and len(annotations.class_names) < IGNORE
    return DatasetIndex(
        where=str(annotations.path),
        images=images,
        tags={name: annotations.tags(position) for name, position in index.items()},
        masks=dict.fromkeys(images, annotations.path) if paintable else {},
        mask_classes=annotations.class_names,
        problems=tuple(problems),
        warnings=annotations.warnings,
        paint=AnnotationMasks(annotations, index, images),
    )


def _finder(present: Mapping[str, Path]) -> Callable[[str], str | None]:
    """Return what finds the name of the image for a file name, also by COCO's 12 digits."""
    numbered = {
        match[1]: name
        for name in present
        if (match := _NUMBERED.fullmatch(name.rpartition("/")[2])) is not None
    }

    def find(written: str) -> str | None:
        name = Path(image_key(written)).with_suffix("").as_posix()
        if name in present:
            return name
        last = name.rpartition("/")[2]
        if last in present:
            return last
        match = _NUMBERED.fullmatch(last)
        return None if match is None else numbered.get(match[1])

    return find


def _index_layout(root: Path, split: str, config: COCOConfig) -> DatasetIndex:
    """Index one part of the VOC-style layout: images, masks and `tags.csv` instead of a JSON."""
    part = next((name for name in _spellings(split) if (root / IMAGE_FOLDER / name).is_dir()), None)
    path = root / TAG_FILE
    if part is None or not path.is_file():
        known = coco_splits(root)
        raise DataError(
            f"{root}: has no annotations/instances_{split}.json, nor {IMAGE_FOLDER}/{split} with "
            f"{TAG_FILE}.{did_you_mean(split, known)} Known: {', '.join(known) or 'none'}"
            f"{layout_hint(root, 'coco')}"
        )
    present, problems = name_images(root / IMAGE_FOLDER / part)
    rows = {Path(name).with_suffix("").as_posix(): tags for name, tags in read_tags(path).items()}
    own = {name: rows.get(f"{part}/{name}", rows.get(name)) for name in present}
    tags = {name: row or () for name, row in own.items() if row or config.keep_empty}
    own_classes = read_class_names(root)
    classes = own_classes or COCO_CLASSES
    problems += unknown_tags(path, tags, classes, assumed="" if own_classes else "COCO's 80")
    if not tags:
        problems.append(f"{path}: no image of {IMAGE_FOLDER}/{part} has a tag")
    found = find_masks(root / MASK_FOLDER / part)
    return DatasetIndex(
        where=str(path),
        images={name: present[name] for name in tags},
        tags=tags,
        masks={name: found[name] for name in tags if name in found},
        mask_classes=classes,
        problems=tuple(problems),
    )


def _instances_path(root: Path, split: str) -> Path | None:
    """Find the instances file of a split; None if there is none."""
    if split.endswith(".json"):
        if not (root / split).is_file():
            raise DataError(f"{root / split}: no such file")
        return root / split
    positions = (root / pattern.format(split) for pattern in _JSON_NAMES)
    return next((path for path in positions if path.is_file()), None)


def _image_folder(root: Path, path: Path, split: str, chosen: Path | None) -> Path:
    """Find the folder that the images of a split stand in."""
    if chosen is not None:
        if not (root / chosen).is_dir():
            raise DataError(f"{root / chosen}: no such folder (data.images)")
        return root / chosen
    name = path.stem.removeprefix("instances_") if split.endswith(".json") else split
    for position in (
        pattern.format(part) for part in _spellings(name) for pattern in _IMAGE_FOLDERS
    ):
        if (root / position).is_dir():
            return root / position
    for folder in (root / "images", root / IMAGE_FOLDER):
        if folder.is_dir():
            return folder
    return root if path.parent in (root, root / "annotations") else path.parent


def _spellings(split: str) -> Sequence[str]:
    """A split's name, and the one without its year."""
    return tuple(dict.fromkeys((split, _YEAR.sub("", split))))
