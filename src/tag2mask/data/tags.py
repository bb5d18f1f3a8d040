"""Tags of images, read from CSV, JSON Lines, class folders or VOC annotations.

Every reader returns a table: name as written -> tags in the order written. A row without tags is a
negative, an image known to show none of the classes, and is kept.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from tag2mask.errors import DataError, did_you_mean
from tag2mask.types import IGNORE

TagTable = Mapping[str, tuple[str, ...]]
"""Image name -> its tags."""
NEGATIVE_FOLDER = "_negative"
"""Class folder whose images show none of the classes."""
_COLUMNS = ("image", "tags")


def read_tags(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a tag file by its suffix: `.csv`, or `.jsonl` for JSON Lines.

    Raises:
        DataError: If the file is missing, unreadable or has a faulty or doubled row (line named).
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: tags are read from .csv or .jsonl files")
    table: dict[str, tuple[str, ...]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for line, name, tags in readers[path.suffix.lower()](stream, path):
                key = image_key(name)
                if not key:
                    raise DataError(f"{path}: line {line}: names no image")
                if key in table:
                    raise DataError(f"{path}: line {line}: '{name}' has a row already; keep one")
                table[key] = _clean(tags)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; save it as 'CSV UTF-8'") from error
    return table


def image_key(name: str) -> str:
    """Return an image's name in the form that is compared: composed letters, `/` between folders."""
    plain = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    return plain.removeprefix("./")


def folder_tags(images: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Take each image's tags from its top folder: `cat/a.jpg` is a cat, `cat;dog/b.jpg` shows both.

    Args:
        images: Paths relative to the folder that holds the class folders, `/` between folders.

    Raises:
        DataError: If images stand beside the class folders.
    """
    names = [image_key(name) for name in images]
    loose = [name for name in names if "/" not in name]
    if loose:
        raise DataError(
            f"images outside the class folders: {name_some(loose)}; move each into the folder of "
            f"its class, or into '{NEGATIVE_FOLDER}' when it shows none"
        )
    table = {}
    for name in names:
        top = name.split("/")[0]
        table[name] = () if top == NEGATIVE_FOLDER else _clean(top.split(";"))
    return table


def annotation_tags(path: Path, known: Iterable[str]) -> tuple[str, ...]:
    """Read the classes of one VOC annotation: each object in `known`, difficult or not, no parts.

    Raises:
        DataError: If the file is missing or is no XML.

    Source:
        Specification 5.3.
    """
    try:
        tree = ElementTree.parse(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: is no readable XML ({error})") from error
    named = {node.text.strip() for node in tree.iterfind("object/name") if node.text}
    return tuple(name for name in known if name in named)


def resolve_classes(wanted: Sequence[str], known: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the classes to learn: `wanted` in its order, or all `known` ones.

    Raises:
        DataError: If a wanted class is unknown (with a hint) or doubled, or if there is no class or
            more than a mask can hold.
    """
    chosen = tuple(wanted) or tuple(known)
    for name in chosen:
        if name not in known:
            raise DataError(
                f"{where}: unknown class '{name}' in data.classes."
                f"{did_you_mean(name, known)} Known: {', '.join(known)}"
            )
    if len(set(chosen)) < len(chosen):
        raise DataError(f"data.classes names a class twice: {', '.join(chosen)}")
    if not 0 < len(chosen) < IGNORE:
        raise DataError(f"{where}: {len(chosen)} classes; a mask holds 1 to {IGNORE - 1}")
    return chosen


def tag_matrix(rows: Iterable[Iterable[str]], classes: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the (N, F) matrix of tags in {0, 1}; tags outside `classes` are dropped."""
    column = {name: index for index, name in enumerate(classes)}
    listed = [list(row) for row in rows]
    matrix = np.zeros((len(listed), len(classes)), dtype=np.uint8)
    for index, row in enumerate(listed):
        matrix[index, [column[name] for name in row if name in column]] = 1
    return matrix


def reject_empty_classes(tags: npt.NDArray[np.uint8], classes: Sequence[str], where: str) -> None:
    """Refuse a training set in which a class has no image, since nothing could be learned of it.

    Raises:
        DataError: Naming the classes.
    """
    empty = [name for name, count in zip(classes, tags.sum(axis=0), strict=True) if count == 0]
    if empty:
        raise DataError(
            f"{where}: no image shows {name_some(empty)}; "
            "add images, or leave it out of data.classes"
        )


def name_some(names: Sequence[str], most: int = 3) -> str:
    """Return the first names and how many more there are: `a, b, c and 9 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _csv_rows(stream: Iterable[str], path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line, name, tags) of a comma-separated file with a header."""
    reader = csv.reader(stream, strict=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        if not set(_COLUMNS) <= set(header):
            raise DataError(
                f"{path}: line 1: the header must be 'image,tags' (columns separated by commas, "
                "tags by ';')"
            )
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(row)} columns where the header has "
                    f"{len(header)}; write 'image.jpg,cat;dog', and 'image.jpg,' for no tags"
                )
            cells = dict(zip(header, row, strict=True))
            yield reader.line_num, cells["image"], cells["tags"].split(";")
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: is no readable CSV ({error})") from error


def _jsonl_rows(stream: Iterable[str], path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line, name, tags) of a file with one JSON object per line."""
    for line, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: line {line}: is no readable JSON ({error.msg})") from error
        name, tags = (row.get(key) for key in _COLUMNS) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not _are_strings(tags):
            raise DataError(
                f'{path}: line {line}: a line is {{"image": "image.jpg", "tags": ["cat", "dog"]}}'
            )
        yield line, name, tags


def _are_strings(value: object) -> TypeGuard[list[str]]:
    """Whether `value` is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _clean(tags: Iterable[str]) -> tuple[str, ...]:
    """Trim tags, compose their letters, drop empty and repeated ones; order stays."""
    trimmed = (unicodedata.normalize("NFC", tag.strip()) for tag in tags)
    return tuple(dict.fromkeys(tag for tag in trimmed if tag))
