"""Tags of images, read from CSV, JSON Lines, class folders or VOC annotations.

Every reader returns a table: image name -> tags, both as written. A row without tags is a negative:
an image that shows none of the classes. Negatives are kept.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt

from tag2mask.errors import DataError, did_you_mean, is_printable, printable, shorten
from tag2mask.io.json_files import parse_json
from tag2mask.io.text_files import open_regular
from tag2mask.io.xml_files import read_xml
from tag2mask.types import IGNORE

TagTable = Mapping[str, tuple[str, ...]]
"""Image name -> its tags."""
NEGATIVE_FOLDER = "_negative"
"""Class folder for images that show none of the classes."""
_COLUMNS = ("image", "tags")
_GROUP = "group"
_MISTYPED = 0.8
"""Similarity from which an unknown class is a known one with a typo, rather than another word."""
_MOST_KNOWN = 30
_LONGEST_TAG = 60
_MOST_UNKNOWN = 20
"""Unknown classes with a line of their own; a nearest name takes time, and nobody reads more."""
_OTHER_SEPARATOR = re.compile(r"\s*[,|/]\s*")


class TagFile(NamedTuple):
    """What a tag file says about each image, by the name as written."""

    tags: dict[str, tuple[str, ...]]
    groups: dict[str, str]
    """Images with a group only."""


class _Row(NamedTuple):
    line: int
    image: str
    tags: list[str]
    group: str


def read_tags(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the tags of a tag file; see `read_tag_file`."""
    return read_tag_file(path).tags


def read_tag_file(path: Path) -> TagFile:
    """Read a tag file in the format of its suffix: `.csv`, or `.jsonl` for JSON Lines.

    Raises:
        DataError: If the file is missing or unreadable, or naming the line of an invalid or
            duplicate row.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: unknown format of tags; use a .csv or .jsonl file")
    found = TagFile({}, {})
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as stream:
            for row in readers[path.suffix.lower()](stream, path):
                key = image_key(row.image)
                if not key:
                    raise DataError(f"{path}: line {row.line}: the image name is empty")
                if key in found.tags:
                    raise DataError(
                        f"{path}: line {row.line}: second row for '{row.image}'; keep only one"
                    )
                found.tags[key] = _clean(row.tags)
                if odd := unprintable(found.tags[key]):
                    raise DataError(f"{path}: line {row.line}: {odd}")
                if row.group.strip():
                    found.groups[key] = row.group.strip()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save it with the encoding UTF-8") from error
    return found


def image_key(name: str) -> str:
    """Normalize an image's name for comparison: composed letters, `/` between folders."""
    normalized = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    return normalized.removeprefix("./")


def folder_tags(images: Iterable[str], hint: str = "") -> dict[str, tuple[str, ...]]:
    """Take each image's tags from its top folder: `cat/a.jpg` shows a cat, `cat+dog/b.jpg` both.

    Args:
        images: Paths relative to the folder that contains the class folders, `/` between folders.
        hint: Another way out, for the message about images outside the class folders.

    Raises:
        DataError: If there are images outside the class folders.
    """
    names = [image_key(name) for name in images]
    loose = [name for name in names if "/" not in name]
    if loose:
        raise DataError(
            f"images outside the class folders: {name_some(loose)}; move each into the folder of "
            f"its class, or into '{NEGATIVE_FOLDER}' if it shows none{hint}"
        )
    if odd := unprintable({name.split("/")[0] for name in names}):
        raise DataError(f"class folder: {odd}")
    table = {}
    for name in names:
        top = name.split("/")[0]
        table[name] = () if top == NEGATIVE_FOLDER else class_folder_tags(top)
    return table


def class_folder_tags(folder: str) -> tuple[str, ...]:
    """Return the tags in the name of a class folder: `cat+dog` and `cat;dog` are two, `c++` one."""
    parts = _clean(re.split("[;+]", folder))
    return parts if len(parts) == len(re.split("[;+]", folder)) else _clean(folder.split(";"))


def unknown_tags(
    where: Path, tags: TagTable, classes: Sequence[str], *, assumed: str = ""
) -> list[str]:
    """Return one line per tag that is not a class of a data set with a fixed list of classes.

    Args:
        where: The tag file.
        tags: Name -> tags.
        classes: The known classes.
        assumed: Whose classes these are if the user has not listed them; adds how to list them.
    """
    images: dict[str, list[str]] = {}
    for name, row in tags.items():
        for tag in row:
            if tag not in classes:
                images.setdefault(tag, []).append(name)
    used = {tag for row in tags.values() for tag in row}
    near = any(
        difflib.get_close_matches(tag, classes, n=1, cutoff=_MISTYPED)
        for tag in sorted(images)[:_MOST_UNKNOWN]
    )
    if assumed and not near and not used & set(classes):  # own classes in this layout
        return [
            f"{where}: no tag is one of {assumed} classes; list your classes in "
            f"{where.with_name('classes.json')}: "
            f"{json.dumps({'classes': sorted(used)}, ensure_ascii=False)}"
        ]
    own = f" Other classes than {assumed} go into classes.json." if assumed else ""
    lines = [
        f"{where}: unknown class '{tag}' of {name_some(images[tag])}."
        f"{separator_hint(tag, classes) or did_you_mean(tag, classes)}{own}"
        for tag in sorted(images)[:_MOST_UNKNOWN]
    ]
    more = len(images) - len(lines)
    return [*lines, *([f"{where}: and {more:,} more unknown classes"] if more else [])]


def separator_hint(tag: str, known: Container[str]) -> str:
    """Return a hint if a tag looks like several with a wrong separator; otherwise empty."""
    parts = _clean(_OTHER_SEPARATOR.split(tag))
    if len(parts) < 2 or not any(part in known for part in parts):
        return ""
    separator = next(letter for letter in ",|/" if letter in tag)
    return f" '{separator}' between tags? Write {';'.join(parts)}"


def annotation_tags(path: Path, known: Iterable[str]) -> tuple[str, ...]:
    """Read the classes of one VOC annotation: every object in `known`, difficult ones included.

    Parts of objects do not count.

    Raises:
        DataError: If the file is missing or not valid XML.

    Source:
        Specification 5.3.
    """
    root = read_xml(path)
    objects = {node.text.strip() for node in root.iterfind("object/name") if node.text}
    return tuple(name for name in known if name in objects)


def resolve_classes(wanted: Sequence[str], known: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the classes to learn: `wanted` in its order, or all `known` ones.

    Raises:
        DataError: If a wanted class is unknown (with a suggestion) or repeated, or if there is no
            class or more than a mask can store.
    """
    chosen = tuple(wanted) or tuple(known)
    for name in chosen:
        if name not in known:
            raise DataError(
                f"{where}: unknown class '{name}' in data.classes (from the recipe, unless you set "
                f"it).{did_you_mean(name, known)} Known: {name_some(known, _MOST_KNOWN)}; "
                "data.classes= learns all of them"
            )
    if odd := unprintable(chosen):
        raise DataError(f"{where}: {odd} (data.classes)")
    if len(set(chosen)) < len(chosen):
        raise DataError(f"data.classes contains a class twice: {', '.join(chosen)}")
    if not 0 < len(chosen) < IGNORE:
        raise DataError(
            f"{where}: {len(chosen)} classes; a mask can store 1 to {IGNORE - 1} (data.classes)"
        )
    return chosen


def tag_matrix(rows: Iterable[Iterable[str]], classes: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the (N, F) matrix of tags in {0, 1}; tags that are not in `classes` are dropped."""
    column = {name: index for index, name in enumerate(classes)}
    listed = [list(row) for row in rows]
    matrix = np.zeros((len(listed), len(classes)), dtype=np.uint8)
    for index, row in enumerate(listed):
        matrix[index, [column[name] for name in row if name in column]] = 1
    return matrix


def reject_empty_classes(tags: npt.NDArray[np.uint8], classes: Sequence[str], where: str) -> None:
    """Reject a training set in which a class has no image.

    Raises:
        DataError: Naming the classes.
    """
    empty = [name for name, count in zip(classes, tags.sum(axis=0), strict=True) if count == 0]
    if empty:
        raise DataError(
            f"{where}: no image has the tag {name_some(empty)}; add images, or remove the class "
            "from data.classes"
        )


def unprintable(names: Iterable[str]) -> str:
    """Say which name cannot be shown on a line, with a control character in it; else empty."""
    odd = next((name for name in names if not is_printable(name)), None)
    return (
        "" if odd is None else f"'{shorten(odd, _LONGEST_TAG)}' has a control character; rename it"
    )


def name_some(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, printable, and the number of others: `a, b, c and 9 more`."""
    more = len(names) - most
    return ", ".join(map(printable, names[:most])) + (f" and {more} more" if more > 0 else "")


def _csv_rows(stream: Iterable[str], path: Path) -> Iterator[_Row]:
    """Yield each row of a comma-separated file with a header."""
    reader = csv.reader(stream, strict=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        _check_header(header, path)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(row)} columns, but the header has "
                    f"{len(header)}; write 'image.jpg,cat;dog' (';' between tags), or "
                    "'image.jpg,' for no tags"
                )
            cells = dict(zip(header, row, strict=True))
            tags = cells["tags"].split(";")
            yield _Row(reader.line_num, cells["image"], tags, cells.get(_GROUP, ""))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not valid CSV ({error})") from error


def _check_header(header: Sequence[str], path: Path) -> None:
    """Reject a header without the needed columns, or with one of them twice."""
    if not set(_COLUMNS) <= set(header):
        raise DataError(
            f"{path}: line 1: the header must be 'image,tags' (columns separated by commas, "
            "tags by ';')"
        )
    for column in (*_COLUMNS, _GROUP):
        if Counter(header)[column] > 1:
            raise DataError(
                f"{path}: line 1: two columns '{column}'; keep one"
                + (", with all tags of an image in it: cat;dog" if column == "tags" else "")
            )


def _jsonl_rows(stream: Iterable[str], path: Path) -> Iterator[_Row]:
    """Yield each line of a file with one JSON object per line."""
    for line, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            row = parse_json(text)
        except ValueError as error:
            raise DataError(f"{path}: line {line}: not valid JSON ({error})") from error
        values = row if isinstance(row, dict) else {}
        name, tags, group = values.get("image"), values.get("tags"), values.get(_GROUP) or ""
        if not isinstance(name, str) or not _are_strings(tags):
            raise DataError(
                f'{path}: line {line}: wrong keys or types; write {{"image": "image.jpg", "tags": '
                '["cat", "dog"]}'
            )
        yield _Row(line, name, tags, str(group))


def _are_strings(value: object) -> TypeGuard[list[str]]:
    """Return whether `value` is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _clean(tags: Iterable[str]) -> tuple[str, ...]:
    """Trim tags, compose their letters, and drop empty and repeated ones; keep their order."""
    trimmed = (unicodedata.normalize("NFC", tag.strip()) for tag in tags)
    return tuple(dict.fromkeys(tag for tag in trimmed if tag))
