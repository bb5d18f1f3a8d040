"""Write one self-contained HTML page about a data set: advice, counts, suspect images."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image as PILImage

from tag2mask.data.checks.report import SEVERITIES, Advice, CheckReport
from tag2mask.errors import DataError
from tag2mask.io.files import write_text
from tag2mask.io.images import read_image
from tag2mask.report.templating import make_environment

_THUMBNAIL_PX = 176
_MOST_THUMBNAILS = 6
"""Per line of advice or group of duplicates."""
_MOST_GROUPS = 60
_MOST_CLASSES = 200
_MOST_PAIRED = 12
"""Classes in the table of pairs."""
_DRAWN = frozenset(("typo", "mask_like", "spelling", "contradiction"))
"""Kinds of advice that small pictures explain; duplicates have a section of their own."""


class Thumbnail(NamedTuple):
    """A small picture with its name."""

    name: str
    data_uri: str
    """The picture as an address that needs no network; empty if the image cannot be read."""


class AdviceLine(NamedTuple):
    """A line of advice with some of its images."""

    advice: Advice
    thumbnails: tuple[Thumbnail, ...]


class DuplicateRow(NamedTuple):
    """One group of duplicates."""

    title: str
    tags: str
    parts: str
    thumbnails: tuple[Thumbnail, ...]
    more: int
    """Images of the group that are not drawn."""


class PairTable(NamedTuple):
    """How many images show two classes, for the most frequent classes."""

    classes: tuple[str, ...]
    rows: tuple[tuple[tuple[int, float], ...], ...]
    """Per class and other class: images that show both, and their fraction of the class's images;
    on the diagonal the images of the class and 1."""


def write_check_page(report: CheckReport, path: Path, command: str) -> None:
    """Write the page about a checked data set.

    Args:
        report: Of `check_folder`.
        path: Of the page.
        command: The line that trains on the data.

    Raises:
        RunError: If the page cannot be written.
    """
    write_text(path, render_check(report, command))


def render_check(report: CheckReport, command: str) -> str:
    """Return the complete page as HTML text."""
    ordered = sorted(report.classes.items(), key=lambda item: -item[1])
    template = make_environment().get_template("data_check.html")
    return template.render(
        report=report,
        title=report.root.resolve().name,
        command=command,
        advice=[
            _advice_line(line, report.files)
            for severity in SEVERITIES
            for line in report.advice
            if line.severity == severity
        ],
        classes=ordered[:_MOST_CLASSES],
        more_classes=max(len(ordered) - _MOST_CLASSES, 0),
        pairs=pair_table(report),
        duplicates=[
            _duplicate_row(report, index)
            for index in range(min(len(report.duplicates), _MOST_GROUPS))
        ],
        more_duplicates=max(len(report.duplicates) - _MOST_GROUPS, 0),
    )


def pair_table(report: CheckReport) -> PairTable | None:
    """Return the table of the most frequent classes; None if no two occur together."""
    if not report.pairs:
        return None
    together = {(first, second): number for first, second, number in report.pairs}
    ordered = sorted(report.classes, key=lambda name: -report.classes[name])[:_MOST_PAIRED]

    def entry(name: str, other: str) -> tuple[int, float]:
        low, high = sorted((name, other))
        number = report.classes[name] if name == other else together.get((low, high), 0)
        return number, number / report.classes[name] if report.classes[name] else 0.0

    return PairTable(
        tuple(ordered), tuple(tuple(entry(name, other) for other in ordered) for name in ordered)
    )


def _advice_line(advice: Advice, files: Mapping[str, Path]) -> AdviceLine:
    """Add small pictures to a line that they explain."""
    names = advice.names if advice.kind in _DRAWN else ()
    return AdviceLine(advice, draw_thumbnails(names, files))


def _duplicate_row(report: CheckReport, index: int) -> DuplicateRow:
    """Describe one group of duplicates."""
    group = report.duplicates[index]
    title = "equal files" if group.exact else "nearly equal"
    if group.kept is not None:
        title = "one image in several class folders"
    elif group.tags_differ:
        title += ", different tags"
    return DuplicateRow(
        title=title,
        tags="; ".join(group.tags) or "none",
        parts=", ".join(group.parts),
        thumbnails=draw_thumbnails(group.names, report.files),
        more=max(len(group.names) - _MOST_THUMBNAILS, 0),
    )


def draw_thumbnails(names: Sequence[str], files: Mapping[str, Path]) -> tuple[Thumbnail, ...]:
    """Draw the first images small; names without a file are left out."""
    listed = [name for name in names if name in files][:_MOST_THUMBNAILS]
    return tuple(Thumbnail(name, _data_uri(files[name])) for name in listed)


def _data_uri(path: Path) -> str:
    """Return a small JPEG of an image as an address; empty if it cannot be read."""
    try:
        image = PILImage.fromarray(read_image(path))
    except DataError:
        return ""
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(stream.getvalue()).decode('ascii')}"
