"""Build `train_aug`, the list of 10,582 training images that published scores on VOC 2012 use.

It is not part of VOC: it is VOC's list `train` and both lists of the Semantic Boundaries Dataset
(SBD), without the images of VOC's list `val`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tag2mask.data.index import count
from tag2mask.data.sbd import read_sbd_lists, read_sbd_mask, sbd_mask_path, sbd_root
from tag2mask.data.tags import name_some
from tag2mask.data.voc import IMAGE_FOLDER, MASK_FOLDERS, VOC_CLASSES, list_path, read_list
from tag2mask.errors import DataError
from tag2mask.io.files import write_text
from tag2mask.io.heif import open_image
from tag2mask.io.images import PILLOW_ERRORS, one_line
from tag2mask.io.masks import read_mask, save_mask
from tag2mask.types import Mask

TRAIN_AUG = "train_aug"
OFFICIAL_MASKS, AUGMENTED_MASKS = MASK_FOLDERS
Track = Callable[[Sequence[str]], Iterable[str]]
"""Passes names through and shows progress."""


@dataclass(frozen=True, slots=True)
class TrainAug:
    """What building the list did."""

    names: tuple[str, ...]
    official: int
    """Masks now copied from VOC."""
    converted: int
    """Masks now converted from SBD."""
    already: int
    """Masks that were there before."""


def build_train_aug(
    root: Path, sbd: Path, sizes: Mapping[str, int], track: Track = iter
) -> TrainAug:
    """Write the masks of `train_aug` to `SegmentationClassAug`, then its list.

    Images of VOC's list `train` keep their official masks, with ignored borders; the others get
    those of SBD. Everything is checked before the first file is written. Finished masks are
    skipped, so an interrupted call resumes; an equal list stays as it is.

    Args:
        root: From `voc_root`.
        sbd: Folder of SBD.
        sizes: List -> number of images that it must have.
        track: Shows progress.

    Raises:
        MissingExtraError: If scipy is not installed.
        DataError: If files are missing, a list has another length, a different list `train_aug`
            exists, or a mask cannot be read or does not fit its image.

    Source:
        Specification 5.3.
    """
    folder = sbd_root(sbd)
    official = frozenset(read_list(root, "train"))
    names = _combine(root, folder, sizes)
    _reject_other_list(root, names)
    _reject_missing(root, folder, names, official)
    out = root / AUGMENTED_MASKS
    missing = [name for name in names if not _mask_path(root, name).is_file()]
    out.mkdir(exist_ok=True)
    # SBD first, so that nothing is written where scipy is missing.
    for name in track(sorted(missing, key=official.__contains__)):
        save_mask(_read(root, folder, name, official), _mask_path(root, name))
    if not list_path(root, TRAIN_AUG).is_file():
        write_text(list_path(root, TRAIN_AUG), "".join(f"{name}\n" for name in names))
    copied = sum(name in official for name in missing)
    return TrainAug(names, copied, len(missing) - copied, len(names) - len(missing))


def _combine(root: Path, folder: Path, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return the names of the list, sorted; reject lists of other lengths."""
    train, val = read_list(root, "train"), read_list(root, "val")
    lists = read_sbd_lists(folder)
    names = tuple(sorted({*train, *lists["train"], *lists["val"]} - set(val)))
    found = {"train": len(train), "val": len(val), TRAIN_AUG: len(names)}
    different = [
        f"{name} has {found[name]:,} images, not {sizes[name]:,}"
        for name in sizes
        if found[name] != sizes[name]
    ]
    if different:
        own = " and ".join(f"{len(lists[name]):,} in {name}.txt" for name in lists)
        raise DataError(
            f"{root}: {'; '.join(different)}. SBD lists {own} (8,498 and 2,857 as published); "
            "restore the lists of both data sets"
        )
    return names


def _reject_other_list(root: Path, names: Sequence[str]) -> None:
    """Reject a list that is there already with other images."""
    path = list_path(root, TRAIN_AUG)
    if not path.is_file():
        return
    found = set(read_list(root, TRAIN_AUG))
    extra, lacking = sorted(found - set(names)), sorted(set(names) - found)
    parts = [
        f"{label} {count(len(some), 'image')}: {name_some(some)}"
        for label, some in (("has", extra), ("lacks", lacking))
        if some
    ]
    if parts:
        raise DataError(
            f"{path}: differs from VOC and SBD: {'; '.join(parts)}; rename it to build the list"
        )


def _reject_missing(
    root: Path, folder: Path, names: Sequence[str], official: frozenset[str]
) -> None:
    """Reject missing images and masks before anything is written."""
    problems = []
    for where, paths in {
        root / IMAGE_FOLDER: [_image_path(root, name) for name in names],
        root / OFFICIAL_MASKS: [_source(root, folder, n, official) for n in names if n in official],
        folder: [_source(root, folder, name, official) for name in names if name not in official],
    }.items():
        absent = [path.name for path in paths if not path.is_file()]
        if absent:
            problems.append(
                f"{where}: {count(len(absent), 'file')} missing: {name_some(absent)}; unpack the "
                "archive again"
            )
    if problems:
        raise DataError(*problems)


def _image_path(root: Path, name: str) -> Path:
    return root / IMAGE_FOLDER / f"{name}.jpg"


def _mask_path(root: Path, name: str) -> Path:
    return root / AUGMENTED_MASKS / f"{name}.png"


def _source(root: Path, folder: Path, name: str, official: frozenset[str]) -> Path:
    """Return the file that an image's mask is read from."""
    if name in official:
        return root / OFFICIAL_MASKS / f"{name}.png"
    return sbd_mask_path(folder, name)


def _read(root: Path, folder: Path, name: str, official: frozenset[str]) -> Mask:
    """Read the mask of an image from VOC or SBD and compare its size with the image's."""
    image, path = _image_path(root, name), _source(root, folder, name, official)
    try:
        with open_image(image) as opened:
            width, height = opened.size
    except PILLOW_ERRORS as error:
        raise DataError(f"{image}: cannot be read as an image ({one_line(error)})") from error
    if name in official:
        return read_mask(path, len(VOC_CLASSES), (height, width))
    mask = read_sbd_mask(path)
    if mask.shape != (height, width):
        raise DataError(
            f"{path}: the mask has {mask.shape[1]}x{mask.shape[0]} px, but its image has "
            f"{width}x{height} px"
        )
    return mask
