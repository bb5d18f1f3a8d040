"""The result of a check: counts, duplicates, advice, and the same facts as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tag2mask.data.layout import Layout
from tag2mask.errors import LONGEST_LINE, printable, shorten

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The most severe first."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One line about a data set."""

    kind: str
    """What it is about, such as `duplicates`; a word that programs can compare."""
    severity: Severity
    """problem: training cannot start; warning: masks get worse; note: good to know."""
    message: str
    names: tuple[str, ...] = ()
    """All images or files concerned; the message names only some."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", printable(shorten(self.message, LONGEST_LINE)))


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Images with equal or nearly equal pixels."""

    names: tuple[str, ...]
    exact: bool
    """Whether the files have equal content."""
    tags: tuple[str, ...]
    """The tags of all of them together."""
    tags_differ: bool
    parts: tuple[str, ...]
    """Parts or lists that contain them."""
    kept: str | None = None
    """The image that has all tags, if the data source made one image of the files."""


@dataclass(frozen=True, slots=True)
class Part:
    """Training images, held-out images, or a list."""

    names: tuple[str, ...]
    classes: Mapping[str, int]
    """Class -> number of images that show it; only classes with an image."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check."""

    root: Path
    source: Layout
    """Data source that reads this folder (`data.name`)."""
    images: int = 0
    unreadable: int = 0
    negatives: int = 0
    """Number of images that show none of the classes."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Class -> number of images that show it."""
    tags_per_image: Mapping[int, int] = field(default_factory=dict)
    """Number of tags -> number of images with that many."""
    pairs: tuple[tuple[str, str, int], ...] = ()
    """Two classes and the number of images that show both, the most frequent first."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) in pixels of the smallest, the median and the largest image by area."""
    masks: int = 0
    """Number of images with a mask."""
    groups: int = 0
    """Number of groups in the tag file."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    duplicates: tuple[Duplicates, ...] = ()
    advice: tuple[Advice, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """Image name -> its file, also of files that were made one image with another."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Lines that stop training."""
        return self._lines("problem")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines that do not stop training but reduce the quality of masks."""
        return self._lines("warning")

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that are good to know."""
        return self._lines("note")

    def share(self, name: str) -> float:
        """Return the fraction of images that show a class."""
        return self.classes[name] / self.images if self.images else 0.0

    def _lines(self, severity: Severity) -> tuple[str, ...]:
        return tuple(line.message for line in self.advice if line.severity == severity)


def as_json(report: CheckReport, command: str) -> dict[str, Any]:
    """Return a report as values that JSON can write.

    Args:
        report: Of `check_folder`.
        command: The line that trains on the data.
    """
    values = {name: value for name, value in asdict(report).items() if name != "files"}
    return {
        **values,
        "root": str(report.root),
        "can_train": not report.problems,
        "command": None if report.problems else command,
    }
