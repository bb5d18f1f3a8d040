"""Match the rows of a tag file with the images of a folder, and say what does not match."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from tag2mask.data.index import count
from tag2mask.data.tags import TagTable, name_some, separator_hint

_MOST_LINES = 10


class MatchedRows(NamedTuple):
    """Which row names which image."""

    rows: dict[str, str]
    """Name of an image -> its row as written."""
    problems: list[str]
    """One line each for rows without image, repeated rows and images without row."""


def match_rows(rows: TagTable, paths: Mapping[str, str], prefix: str) -> MatchedRows:
    """Match rows with images.

    A row may name an image relative to the image folder or to root, with or without suffix.

    Args:
        rows: Image as written -> tags.
        paths: Name -> path in the image folder.
        prefix: Path of the image folder in root, with `/` at its end; empty if it is root.
    """
    lookup = {path: name for name, path in paths.items()}
    for name, path in paths.items():
        for other in (name, prefix + path, prefix + name):
            lookup.setdefault(other, name)
    matched: dict[str, str] = {}
    unknown, repeated = [], []
    for row in rows:
        name_found = lookup.get(row)
        if name_found is None:
            unknown.append(row)
        elif name_found in matched:
            repeated.append(row)
        else:
            matched[name_found] = row
    missing = [path for name, path in paths.items() if name not in matched]
    problems = []
    if unknown:
        problems.append(
            f"{count(len(unknown), 'row')} without image: {name_some(unknown)}"
            f"{_nearest_image(unknown[0], missing)}; add the images, or remove the rows"
        )
    if repeated:
        problems.append(f"images with two rows: {name_some(repeated)}; keep only one of each")
    if missing:
        problems.append(
            f"{count(len(missing), 'image')} without row: {name_some(missing)}; add a row for "
            f"each, '{missing[0]},' if it shows no class"
        )
    return MatchedRows(matched, problems)


def joined_tags(tags: TagTable) -> list[str]:
    """Return a line for each of the first tags that are several with a wrong separator: `cat,dog`.

    One more line counts the others.
    """
    used = {tag for row in tags.values() for tag in row}
    hints = {tag: hint for tag in sorted(used) if (hint := separator_hint(tag, used))}
    lines = []
    for tag in list(hints)[:_MOST_LINES]:
        names = [name for name, row in tags.items() if tag in row]
        lines.append(f"tag '{tag}' of {name_some(names)}:{hints[tag]}")
    more = len(hints) - len(lines)
    return [*lines, *([f"and {count(more, 'more tag')} of this kind"] if more else [])]


def _nearest_image(row: str, missing: list[str]) -> str:
    """Return a hint if an image without row has the row's name but for case, suffix or folder."""
    wanted = PurePosixPath(row).name.casefold()
    stem = PurePosixPath(wanted).stem
    for path in missing:
        name = PurePosixPath(path).name.casefold()
        if stem in (name, PurePosixPath(name).stem):
            return f" (there is {path})"
    return ""
