"""The data doctor: everything worth knowing about a data set before training on it."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tag2mask.data.coco import COCOConfig, coco_splits, survey_coco
from tag2mask.data.folder import FolderConfig, is_held_out, survey_folder
from tag2mask.data.photo import read_photo
from tag2mask.data.survey import Survey, count, merge_surveys
from tag2mask.data.tags import name_some, tag_matrix
from tag2mask.data.voc import PHOTO_FOLDER, read_list, survey_voc, voc_lists, voc_root
from tag2mask.errors import DataError
from tag2mask.types import BACKGROUND, IGNORE

FEW_PHOTOS = 20
"""Below this many photos of a class, expect little."""
_MOST_LINES = 10


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found, and what to do about it."""

    root: Path
    source: Literal["coco", "folder", "voc"]
    """Data source of a recipe that reads these data."""
    photos: int = 0
    unreadable: int = 0
    negatives: int = 0
    """Photos that show none of the classes."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Class -> photos that show it."""
    tags_per_photo: Mapping[int, int] = field(default_factory=dict)
    """Number of tags -> photos with that many."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) in pixels of the smallest, the middle and the largest photo by area."""
    masks: int = 0
    """Photos with a mask file."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Part or list -> photos."""
    faults: tuple[str, ...] = ()
    """What training would refuse."""
    warnings: tuple[str, ...] = ()
    """What would go through, but make the masks worse."""

    def share(self, name: str) -> float:
        """Return the share in [0, 1] of the photos that show a class."""
        return self.classes[name] / self.photos if self.photos else 0.0


class _Look(NamedTuple):
    """One photo and its mask, looked at."""

    digest: bytes
    """Of the file's content; empty where it cannot be read."""
    size: tuple[int, int] | None
    """(width, height), upright; None: unreadable."""
    fault: str | None
    mask_fault: str | None
    shows_class: bool
    """Whether the mask has a pixel of a class."""


def check_folder(root: Path, *, strict: bool = False) -> CheckReport:
    """Look at every photo, tag and mask of a data set.

    Args:
        root: A folder in COCO format or VOC layout, or one that the source `folder` reads.
        strict: Count unreadable photos as faults, as training with `data.strict` does.

    Returns:
        The report; a data set that cannot be read at all has its reason in `faults`.
    """
    source = layout_of(root)
    try:
        look = {"coco": _survey_coco, "voc": _survey_voc, "folder": _survey_folder}[source]
        survey, parts = look(root)
    except DataError as error:
        return CheckReport(root, source, faults=tuple(str(error).splitlines()))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = pool.map(lambda name: _look(survey, name), survey.photos)
        looks = dict(zip(survey.photos, found, strict=True))
    broken = [look.fault for look in looks.values() if look.fault is not None]
    bad_masks = [look.mask_fault for look in looks.values() if look.mask_fault is not None]
    by_area = sorted((look.size for look in looks.values() if look.size), key=math.prod)
    rows = list(survey.tags.values())
    shown = Counter(tag for row in rows for tag in row)
    faults = [*survey.faults, *_first_lines(bad_masks, "unusable mask")]
    warnings = _tag_warnings(rows, survey.shown) + _name_warnings(survey)
    warnings += _twin_warnings(looks) + _mask_warnings(source, survey, looks)
    (faults if strict else warnings).extend(_first_lines(broken, "unreadable photo"))
    return CheckReport(
        root=root,
        source=source,
        photos=len(survey.photos),
        unreadable=len(broken),
        negatives=sum(not row for row in rows),
        classes={name: shown[name] for name in survey.shown},
        tags_per_photo=dict(sorted(Counter(len(row) for row in rows).items())),
        sizes=(by_area[0], by_area[len(by_area) // 2], by_area[-1]) if by_area else (),
        masks=len(survey.masks),
        parts=parts,
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


def layout_of(root: Path) -> Literal["coco", "folder", "voc"]:
    """Name the data source that reads a folder."""
    if coco_splits(root.expanduser()):
        return "coco"
    try:
        return "voc" if voc_root(root).is_dir() else "folder"
    except DataError:
        return "folder"


def _survey_voc(root: Path) -> tuple[Survey, dict[str, int]]:
    """Survey the photos of all lists."""
    place = voc_root(root)
    lists = voc_lists(place)
    if not lists:
        raise DataError(f"{place}: has {PHOTO_FOLDER} but no list in ImageSets/Segmentation")
    return survey_voc(place, lists), {name: len(read_list(place, name)) for name in lists}


def _survey_coco(root: Path) -> tuple[Survey, dict[str, int]]:
    """Survey the photos of all splits; those of a split of which no photo is there count 0."""
    config = COCOConfig(name="coco", root=root, keep_empty=True)
    surveys = {split: survey_coco(config, split) for split in coco_splits(root.expanduser())}
    there = {split: survey for split, survey in surveys.items() if survey.photos} or surveys
    parts = {split: len(survey.photos) for split, survey in surveys.items()}
    return merge_surveys(root, there), parts


def _survey_folder(root: Path) -> tuple[Survey, dict[str, int]]:
    """Survey a folder as the source reads it when nothing is set."""
    config = FolderConfig(name="folder", root=root)
    survey = survey_folder(config)
    held_out = sum(is_held_out(name, config.val_fraction) for name in survey.photos)
    return survey, {"train": len(survey.photos) - held_out, "val": held_out}


def _look(survey: Survey, name: str) -> _Look:
    """Read one photo, and its mask if there is one."""
    path = survey.photos[name]
    digest, size, fault, mask_fault, shows_class = b"", None, None, None, False
    try:
        digest = hashlib.sha256(path.read_bytes()).digest()
        height, width = read_photo(path).shape[:2]
        size = (width, height)
    except OSError as error:
        fault = f"{path}: cannot be read ({error.strerror})"
    except DataError as error:
        fault = str(error)
    if name in survey.masks:
        classes = survey.mask_classes or survey.shown
        try:
            values = survey.read_mask(name, len(classes), (size[1], size[0]) if size else None)
            shows_class = bool(((values != BACKGROUND) & (values != IGNORE)).any())
        except DataError as error:
            mask_fault = str(error)
    return _Look(digest, size, fault, mask_fault, shows_class)


def _tag_warnings(rows: Sequence[Sequence[str]], classes: Sequence[str]) -> list[str]:
    """Tell of tags from which the classes cannot be learned well."""
    matrix = tag_matrix(rows, classes).astype(np.int64)
    counts = matrix.sum(axis=0)
    warnings = [
        f"class '{name}': every photo shows it, so nothing tells it from background; add photos "
        "without it, with their other tags or none"
        for name, number in zip(classes, counts, strict=True)
        if number == len(rows)
    ]
    few = [
        f"{name} ({number})"
        for name, number in zip(classes, counts, strict=True)
        if number < FEW_PHOTOS
    ]
    if few:
        warnings.append(
            f"classes with fewer than {FEW_PHOTOS} photos: {name_some(few, _MOST_LINES)}; expect "
            "little of them, add photos"
        )
    together = matrix.T @ matrix  # (F, F) photos that show both
    warnings += [
        f"classes '{classes[i]}' and '{classes[j]}' always occur together, so tags cannot tell "
        "them apart; add photos of each alone, or merge them"
        for i in range(len(classes))
        for j in range(i + 1, len(classes))
        if together[i, j] == counts[i] == counts[j]
    ]
    return warnings


def _name_warnings(survey: Survey) -> list[str]:
    """Tell of tags that look mistyped or are no class, and of classes without a photo."""
    folded: dict[str, list[str]] = {}
    for name in survey.shown:
        folded.setdefault(name.casefold(), []).append(name)
    warnings = [
        f"tags {', '.join(repr(name) for name in names)} differ in case only and count as "
        "different classes; write them alike"
        for names in folded.values()
        if len(names) > 1
    ]
    for name in folded.get("background", []):
        warnings.append(
            f"tag '{name}' would be learned as a class; a photo without classes has no tags at all"
        )
    unseen = [name for name in survey.mask_classes if name not in survey.shown]
    if unseen:
        warnings.append(
            f"no photo shows {name_some(unseen, _MOST_LINES)}; leave it out of data.classes"
        )
    return warnings


def _twin_warnings(looks: Mapping[str, _Look]) -> list[str]:
    """Tell of files with equal content."""
    twins: dict[bytes, list[str]] = {}
    for name, look in looks.items():
        twins.setdefault(look.digest, []).append(name)
    groups = [" = ".join(names) for digest, names in twins.items() if digest and len(names) > 1]
    if not groups:
        return []
    return [f"photos with equal content: {name_some(groups)}; keep one of each"]


def _mask_warnings(source: str, survey: Survey, looks: Mapping[str, _Look]) -> list[str]:
    """Tell of masks that cannot be meant as they are."""
    if not survey.masks:
        return []
    warnings = []
    if source == "folder" and len(survey.masks) < len(survey.photos):
        warnings.append(
            f"{len(survey.masks):,} of {count(len(survey.photos), 'photo')} have a mask; held-out "
            "photos are scored by masks only if all of them have one"
        )
    if not any(look.shows_class or look.mask_fault for look in looks.values()):
        warnings.append(
            f"no mask shows a class: pixels are {BACKGROUND} (background) or {IGNORE} (ignore) "
            "only; objects are written as 1, 2, ... in the order of the classes"
        )
    return warnings


def _first_lines(lines: Sequence[str], thing: str) -> list[str]:
    """Return the first lines and one that counts the others."""
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], *([f"and {count(more, f'more {thing}')}"] if more > 0 else [])]
