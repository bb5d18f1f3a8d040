"""The images of a folder on the page: their tags, and where their corrected masks go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tag2mask.data.base import Source
from tag2mask.data.folder import TAG_FILES
from tag2mask.data.index import name_images
from tag2mask.data.layout import layout_of
from tag2mask.data.tags import class_folder_tags
from tag2mask.errors import DataError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.mask_folder import read_scores

MASKS = "masks"
"""Folder of true masks beside the images; training on the folder finds them there."""


@dataclass(frozen=True, slots=True)
class FolderImage:
    """One image of the folder."""

    name: str
    """Path below the folder of images, without suffix."""
    path: Path
    tags: tuple[str, ...] | None
    """Tags that the run knows; None if the folder has no tags."""
    uncertainty: float | None
    """Of the mask that `label` wrote; None if it is not known yet."""


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of one folder."""

    root: Path
    images: tuple[FolderImage, ...]
    masks: Path | None
    """Where corrected masks go; None if the layout has no folder for them."""
    source: Source | None
    """The tagged images; None if the folder has no tags."""


def open_image_folder(
    segmenter: Segmenter, root: Path, labeled: Path | None = None, save: Path | None = None
) -> ImageFolder:
    """Find the images of a folder, in any layout that `train` reads, or without tags.

    Args:
        segmenter: The run; its classes say which tags count.
        root: The folder.
        labeled: Masks that `label` or `predict` wrote for these images; their uncertainties are
            used.
        save: Where corrected masks go; None: `masks` in `root`.

    Raises:
        DataError: If there are no images, or images and tags contradict each other.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    own_layout = layout_of(root) == "folder"
    masks = save or (root / MASKS if own_layout else None)
    rows = _uncertainties(labeled)
    if own_layout and not _has_tags(root, segmenter.class_names):
        files = _untagged(root)
        images = [FolderImage(name, path, None, rows.get(name)) for name, path in files.items()]
        return ImageFolder(root, tuple(images), masks, None)
    source = segmenter.tagged_images(root)
    source.reads_masks = False
    tagged = [
        FolderImage(
            name,
            source.image_files[name],
            tuple(source.class_names[index] for index in row.nonzero()[0]),
            rows.get(name),
        )
        for name, row in zip(source.names, source.tags, strict=True)
    ]
    return ImageFolder(root, tuple(tagged), masks, source)


def _untagged(root: Path) -> dict[str, Path]:
    """Return the images of a folder without tags by name."""
    folder = root / "images" if (root / "images").is_dir() else root
    files, problems = name_images(folder, leave_out=root / MASKS)
    if problems:
        raise DataError(*problems)
    if not files:
        raise DataError(f"{folder}: contains no images")
    return files


def _has_tags(root: Path, class_names: tuple[str, ...]) -> bool:
    """Return whether a folder has a tag file, or a class folder of a class that the run knows."""
    if any((root / name).is_file() for name in TAG_FILES):
        return True
    folders = [path.name for path in root.iterdir() if path.is_dir()]
    return any(set(class_folder_tags(name)) & set(class_names) for name in folders)


def _uncertainties(labeled: Path | None) -> dict[str, float]:
    """Return name -> uncertainty from the `scores.jsonl` of a mask folder."""
    if labeled is None:
        return {}
    if not labeled.is_dir():
        raise DataError(f"{labeled}: no such folder; 'tag2mask label' writes it")
    rows = read_scores(labeled)
    found = {name: row["uncertainty"] for name, row in rows.items() if "uncertainty" in row}
    if not found:
        raise DataError(
            f"{labeled}: has no uncertainties (scores.jsonl); give the folder that 'tag2mask "
            "label' or 'predict' wrote"
        )
    return found
