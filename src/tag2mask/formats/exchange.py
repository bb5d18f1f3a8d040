"""Export masks to a labeling tool, and import what a person corrected there.

The output appears complete or not at all: it is written under a temporary name, then renamed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tag2mask import plugins
from tag2mask.data.index import find_masks, name_images
from tag2mask.data.tags import name_some, unprintable
from tag2mask.errors import DataError, RunError, UnknownPluginError, did_you_mean, shorten
from tag2mask.formats.base import Format, MaskCollection, ModelFormat, NamedMask, ReadMasks
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.files import staging_beside
from tag2mask.io.locks import folder_lock
from tag2mask.io.mask_folder import (
    describe_classes,
    read_class_names,
    read_classes,
    write_classes,
)
from tag2mask.io.masks import read_mask, renumber, save_mask
from tag2mask.types import IGNORE

_PATH_LETTERS = re.compile(r"[^\x00\ud800-\udfff]+")
_LONGEST_NAME = 100


def export_masks(masks: MaskCollection, format_name: str, out: Path) -> None:
    """Write masks in the format of a labeling tool.

    Args:
        masks: From `open_masks`.
        format_name: File of the folder `formats`.
        out: File or folder to create.

    Raises:
        RecipeError: If there is no such format.
        DataError: If a mask or image cannot be read.
        RunError: If `out` exists, or is not named as the format needs.
    """
    kind: type[Format] = plugins.load("formats", format_name)
    _check_suffix(out, kind.suffix, format_name)
    _create(out, lambda path: kind().write(masks, path))


def is_model_format(format_name: str) -> bool:
    """Return whether a format writes the network of a run, and not masks.

    Raises:
        UnknownPluginError: If there is no such format.
    """
    models, masks = (plugins.available(folder) for folder in ("formats.models", "formats"))
    if format_name not in {*models, *masks}:
        raise UnknownPluginError("format", format_name, {*models, *masks})
    return format_name in models


def export_model(segmenter: Segmenter, format_name: str, out: Path) -> None:
    """Write the network of a run as a model file.

    Args:
        segmenter: The run, with the test-time settings that the model gets.
        format_name: File of the folder `formats/models`.
        out: File to create.

    Raises:
        RunError: If `out` exists, is not named as the format needs, or a setting of the run cannot
            be part of a model file.
        MissingExtraError: If a package is not installed.
    """
    kind: type[ModelFormat] = plugins.load("formats.models", format_name)
    _check_suffix(out, kind.suffix, format_name)
    _create(out, lambda path: kind().write(segmenter, path))


def import_masks(
    path: Path, format_name: str, out: Path, images: Path | None = None, *, add: bool = False
) -> int:
    """Read the masks of a labeling tool into a folder that `train` and `evaluate` can read.

    Args:
        path: What the tool exported.
        format_name: File of the folder `formats`.
        out: Folder to create, with `classes.json` and an indexed PNG for each image.
        images: Folder of the images. Masks get the names of these images, also where the tool
            dropped the folders of a name; some formats need it for the sizes of images.
        add: Add to the masks of an existing folder instead.

    Returns:
        Number of masks.

    Raises:
        RecipeError: If there is no such format.
        DataError: If the masks cannot be read, or there are none.
        RunError: If `out` exists; with `add`, if it already has a mask of one of the images.
    """
    kind: type[Format] = plugins.load("formats", format_name)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    count = 0

    def write(folder: Path) -> None:
        nonlocal count
        found = kind().read(path, images)
        _check_classes(found.class_names, path)
        if images is not None:
            found = replace(found, masks=_rename(found.masks, images))
        count = _write_masks(found, folder, {"format": format_name, "imported": str(path)})
        if not count:
            raise DataError(f"{path}: contains no image with a mask")

    if add and out.is_dir():
        with folder_lock(out), staging_beside(out) as staging:
            write(staging / out.name)
            _add_masks(staging / out.name, out)
    else:
        _create(out, write)
    return count


def _add_masks(folder: Path, out: Path) -> None:
    """Add the masks of a folder to another one, whose classes keep their values.

    Raises:
        RunError: If both have a mask of the same image, or `out` has no `classes.json`.
    """
    described, masks = read_classes(out), find_masks(folder)
    own, found = described["classes"], read_class_names(folder)
    if same := sorted(masks.keys() & find_masks(out).keys()):
        raise RunError(
            f"{out}: already has a mask of {name_some(same)}; move it away, or import to another "
            "folder"
        )
    merged = [*own, *(name for name in found if name not in own)]
    if merged != own:
        settings = described.get("settings", {})
        source = described.get("class_source", "corrected")
        write_classes(out, describe_classes(merged, source, settings))
    table = renumber(found, merged)
    for name, path in masks.items():
        target = out / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        save_mask(table[read_mask(path, len(found))], target)


def _rename(masks: Iterator[NamedMask], folder: Path) -> Iterator[NamedMask]:
    """Give masks the names of the images in a folder, found by the complete or the last name.

    Raises:
        DataError: If there is no image for a mask, or several.
    """
    images, _ = name_images(folder)
    by_last: dict[str, list[str]] = {}
    for name in images:
        by_last.setdefault(name.rpartition("/")[2], []).append(name)
    for name, mask in masks:
        same = [name] if name in images else by_last.get(name.rpartition("/")[2], [])
        if len(same) != 1:
            hint = f"could be {name_some(same)}" if same else "is no image of this folder"
            raise DataError(f"{folder}: '{name}' {hint}.{did_you_mean(name, images)}")
        yield NamedMask(same[0], mask)


def _write_masks(found: ReadMasks, folder: Path, settings: dict[str, str]) -> int:
    """Write masks and their `classes.json`; return how many."""
    described = describe_classes(found.class_names, "corrected", settings)
    write_classes(folder, described)
    count = 0
    for name, mask in found.masks:
        _check_name(name)
        target = folder / f"{name}.png"
        if not target.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"image name '{name}' leaves the output folder; rename the image")
        if target.exists():
            raise DataError(f"two images are named '{name}'; rename one of them")
        target.parent.mkdir(parents=True, exist_ok=True)
        save_mask(mask, target)
        count += 1
    return count


def _check_classes(names: Sequence[str], path: Path) -> None:
    """Reject class names that a mask folder cannot have.

    Raises:
        DataError: If there are too many or none, or one is empty, occurs twice or cannot be shown.
    """
    if not 0 < len(names) < IGNORE:
        raise DataError(f"{path}: {len(names)} classes; a mask can store 1 to {IGNORE - 1}")
    if odd := unprintable(names):
        raise DataError(f"{path}: class {odd}")
    if not all(name.strip() for name in names):
        raise DataError(f"{path}: the name of a class is empty")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(f"{path}: two classes are named {name_some(twice)}")


def _check_name(name: str) -> None:
    """Reject the name of an image that no file can have.

    Raises:
        DataError: If it is empty or has a character that no path may have.
    """
    if not name or name.endswith("/") or not _PATH_LETTERS.fullmatch(name):
        raise DataError(f"'{shorten(name, _LONGEST_NAME)}' is no name of an image file")


def _check_suffix(out: Path, suffix: str, format_name: str) -> None:
    """Reject an output that is not named as the format needs."""
    if suffix and out.suffix.lower() != suffix:
        raise RunError(
            f"{out}: format {format_name} writes one {suffix} file; "
            f"use --out {out.with_name(out.name + suffix)}"
        )


def _create(out: Path, write: Callable[[Path], None]) -> None:
    """Let `write` create a file or folder in a temporary folder beside `out`, then rename it.

    Raises:
        RunError: If `out` exists.
    """
    if out.exists():
        raise RunError(f"{out}: exists already; choose another path or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging_beside(out) as staging:
        write(staging / out.name)
        (staging / out.name).rename(out)
