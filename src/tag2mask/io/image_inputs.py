"""The images that a path on the command line names, and what a path names that has none."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tag2mask.errors import DataError, MissingExtraError
from tag2mask.io.heif import EXTRA, can_read_heif, is_heif, open_image
from tag2mask.io.images import PILLOW_ERRORS, is_image_name, list_images, visible_files
from tag2mask.io.mask_folder import CLASSES_FILE
from tag2mask.io.masks import is_probably_mask
from tag2mask.io.other_files import TEXT, FileKind, by_kind, describe_file, is_address

_SAMPLE = 8
"""Images of a folder that are opened to recognize masks."""
_MOST_NAMES = 3


def input_images(path: Path) -> list[Path]:
    """Return the image that a path names, or all images of a folder.

    Raises:
        DataError: If there is none, with what is there instead and what to do about it: a video, an
            archive, an address of the web, a folder of masks, HEIC images without their extra.
    """
    if is_address(path):
        address = re.sub(r"^(\w+):/+", r"\1://", path.as_posix())
        raise DataError(f"{address}: a web address; download the file first: curl -LO {address}")
    if path.is_dir():
        images = list_images(path)
        if not images:
            raise DataError(f"{path}: no images in this folder{_what_instead(path)}")
        _reject_masks(path, images)
    elif path.is_file():
        images = [path]
        if not is_image_name(path) and not _is_image(path):
            raise DataError(f"{path}: {describe_file(path, 'an image')}")
    else:
        raise DataError(f"{path}: no such image or folder")
    _reject_heif(path, images)
    return images


def named_images(paths: Sequence[Path], listed: Path | None = None) -> dict[str, Path]:
    """Give each image its mask name: the path inside its folder, without suffix.

    Args:
        paths: Images and folders of images.
        listed: Text file of further images, see `listed_images`.

    Raises:
        DataError: If a path names no image, or two images get the same name.
    """
    named: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            named += [
                (image.relative_to(path).with_suffix("").as_posix(), image)
                for image in input_images(path)
            ]
        else:
            named += [(image.stem, image) for image in input_images(path)]
    if listed is not None:
        named += listed_images(listed)
    for name, count in Counter(name for name, _ in named).items():
        if count > 1:
            same = ", ".join(str(image) for found, image in named if found == name)
            raise DataError(f"{same}: would all write {name}.png; rename them or use separate runs")
    return dict(named)


def listed_images(path: Path) -> list[tuple[str, Path]]:
    """Read a list of images; their names are the paths inside the folder that contains all.

    No image is opened: one that is missing is skipped like one that is damaged.

    Args:
        path: Text file with one path per line, relative to its folder; empty lines do not count.

    Raises:
        DataError: If it cannot be read or names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of images ({error})") from error
    images = [path.parent / line.strip() for line in lines if line.strip()]
    if not images:
        raise DataError(f"{path}: names no image; write one path per line")
    common = Path(os.path.commonpath([image.absolute().parent for image in images]))
    return [
        (image.absolute().relative_to(common).with_suffix("").as_posix(), image) for image in images
    ]


def name_files(paths: Sequence[Path], folder: Path) -> str:
    """Return the paths of the first files within a folder and the number of the others."""
    names = [path.relative_to(folder).as_posix() for path in paths[:_MOST_NAMES]]
    more = len(paths) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")


def ignored_files(paths: Sequence[Path]) -> list[str]:
    """Return a line per folder and kind of file in it that is no image, text files left out.

    Args:
        paths: Images and folders of images.
    """
    return [
        f"{folder}: {_describe_kind(kind, files, folder)}"
        for folder in paths
        if folder.is_dir()
        for kind, files in _other_files(folder).items()
        if kind is not TEXT
    ]


def _what_instead(folder: Path) -> str:
    """Return what a folder without images contains, and what to do; empty for an empty folder."""
    found = _other_files(folder)
    return f", but {_describe_kind(*next(iter(found.items())), folder)}" if found else ""


def _other_files(folder: Path) -> dict[FileKind, list[Path]]:
    """Return the files of a folder that are no images, by kind."""
    return by_kind(path for path in sorted(visible_files(folder)) if not is_image_name(path))


def _describe_kind(kind: FileKind, paths: Sequence[Path], folder: Path) -> str:
    """Return the number and names of files of a kind, and what to do with them."""
    noun = kind.name if len(paths) == 1 else kind.plural
    advice = kind.advice.replace("VIDEO", paths[0].name)
    return f"{len(paths):,} {noun} ({name_files(paths, folder)}); {advice}"


def _reject_masks(folder: Path, images: Sequence[Path]) -> None:
    step = max(1, len(images) // _SAMPLE)
    has_classes = (folder / CLASSES_FILE).is_file()
    if has_classes or all(is_probably_mask(path) for path in images[::step]):
        why = f"it has a {CLASSES_FILE}" if has_classes else "a few values as pixels"
        raise DataError(
            f"{folder}: contains masks, not images ({why}); give the folder of the images, or save "
            "drawings as RGB"
        )


def _reject_heif(path: Path, images: Sequence[Path]) -> None:
    """Reject a path all of whose images need the extra for HEIC."""
    if can_read_heif() or not all(is_heif(image) for image in images):
        return
    raise DataError(
        f"{path}: {'HEIC images' if path.is_dir() else 'a HEIC image'}; {MissingExtraError(EXTRA)}"
    )


def _is_image(path: Path) -> bool:
    """Return whether a file without the suffix of an image is one."""
    try:
        open_image(path).close()
    except PILLOW_ERRORS:
        return False
    return True
