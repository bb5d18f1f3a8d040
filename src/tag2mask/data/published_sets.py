"""Check that VOC 2012 and COCO 2014 on disk are the sets that published scores use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tag2mask.data.coco import COCO_CLASSES, COCOConfig, index_coco
from tag2mask.data.index import DatasetIndex, count, find_masks
from tag2mask.data.sbd import SBD_URL
from tag2mask.data.tags import name_some
from tag2mask.data.train_aug import AUGMENTED_MASKS, OFFICIAL_MASKS, TRAIN_AUG
from tag2mask.data.voc import index_voc, list_path, read_list
from tag2mask.errors import DataError

VOC_SIZES = {"train": 1_464, "val": 1_449, TRAIN_AUG: 10_582}
"""List -> number of images (Specification 5.3)."""
COCO_SIZES = {"train2014": 82_081, "val2014": 40_137}
"""Split -> number of images with an annotation (Specification 5.3)."""
VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
COCO_URLS = (
    "http://images.cocodataset.org/zips/train2014.zip",
    "http://images.cocodataset.org/zips/val2014.zip",
    "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
)


@dataclass(frozen=True, slots=True)
class SetReport:
    """What a set on disk contains."""

    sizes: Mapping[str, int]
    """List or split -> number of images."""
    masks: Mapping[str, int]
    """Where masks come from -> number of images with one."""
    warnings: tuple[str, ...] = ()
    """One line for each oddity that does not change which images are used."""


def check_voc(root: Path, sizes: Mapping[str, int] = VOC_SIZES) -> SetReport:
    """Check the lists `train`, `val` and `train_aug` of VOC 2012, their images, tags and masks.

    Args:
        root: From `voc_root`.
        sizes: List -> number of images that it must have.

    Raises:
        DataError: If a list is missing, has another length or contradicts another one, or images,
            tags or official masks are missing. One line per problem.
    """
    if not list_path(root, TRAIN_AUG).is_file():
        raise DataError(
            f"{list_path(root, TRAIN_AUG)}: is missing; VOC does not contain it. Unpack {SBD_URL} "
            "and add --sbd DIR to build it, or copy a published list there"
        )
    lists = {name: read_list(root, name) for name in sizes}
    found = {name: len(names) for name, names in lists.items()}
    problems = [*_size_problems(str(root), found, sizes), *_list_problems(root, lists)]
    index = index_voc(root, list(lists))
    problems += index.problems
    official = find_masks(root / OFFICIAL_MASKS)
    for name in ("train", "val"):
        absent = [image for image in lists[name] if image not in official]
        if absent:
            problems.append(
                f"{root / OFFICIAL_MASKS}: {count(len(absent), 'mask')} of {name} missing: "
                f"{name_some(absent)}; unpack {VOC_URL} again"
            )
    if problems:
        raise DataError(*problems)
    augmented = find_masks(root / AUGMENTED_MASKS)
    masked = sum(name in augmented for name in lists[TRAIN_AUG])
    return SetReport(
        sizes=found,
        masks={OFFICIAL_MASKS: found["train"] + found["val"], AUGMENTED_MASKS: masked},
        warnings=tuple(_mask_warnings(root, masked, found[TRAIN_AUG])),
    )


def check_coco(root: Path, sizes: Mapping[str, int] = COCO_SIZES) -> SetReport:
    """Check the splits of COCO 2014: annotations, images and number of images.

    Odd outlines, such as those outside their image, are warnings: they do not change which images
    and tags are used.

    Args:
        root: Folder with `annotations` and the folders of images.
        sizes: Split -> number of images with an annotation that it must have.

    Raises:
        DataError: If a file is missing or unusable, or a split has another number of images or
            other classes. One line per problem.
    """
    found, masks = {}, {}
    problems: list[str] = []
    warnings: list[str] = []
    for split in sizes:
        index = index_coco(COCOConfig(name="coco", root=root), split)
        found[split], masks[split] = len(index.images), len(index.masks)
        problems += [*index.problems, *_class_problems(index)]
        warnings += index.warnings
    problems += _size_problems(str(root), found, sizes)
    if problems:
        raise DataError(*problems)
    return SetReport(found, masks, tuple(warnings))


def _size_problems(where: str, found: Mapping[str, int], sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each list of another length."""
    for name, size in sizes.items():
        if found[name] != size:
            yield (
                f"{where}: {name} has {count(found[name], 'image')}, the published scores use "
                f"{size:,}; unpack the archives again"
            )


def _list_problems(root: Path, lists: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield what makes scores of one list invalid for networks that trained on another."""
    learned = set(lists[TRAIN_AUG])
    shared = [name for name in lists["val"] if name in learned]
    lacking = [name for name in lists["train"] if name not in learned]
    path = list_path(root, TRAIN_AUG)
    if shared:
        yield (
            f"{path}: {count(len(shared), 'image')} of val: {name_some(shared)}; scores on val "
            "would be invalid, remove them from the list"
        )
    if lacking:
        yield (
            f"{path}: lacks {count(len(lacking), 'image')} of train: {name_some(lacking)}; add them"
        )


def _mask_warnings(root: Path, masked: int, images: int) -> Iterator[str]:
    """Yield a line if not all images of `train_aug` have a mask."""
    if masked < images:
        yield (
            f"{root / AUGMENTED_MASKS}: masks for {masked:,} of {images:,} images; --sbd DIR "
            "builds the others. Only training on true masks needs them"
        )


def _class_problems(index: DatasetIndex) -> Iterator[str]:
    """Yield a line if the classes are not those of COCO."""
    if index.mask_classes != COCO_CLASSES:
        others = sorted(set(index.mask_classes) ^ set(COCO_CLASSES))
        yield (
            f"{index.where}: has {len(index.mask_classes)} classes that are not COCO's 80 in their "
            f"order" + (f"; different: {name_some(others)}" if others else "")
        )
