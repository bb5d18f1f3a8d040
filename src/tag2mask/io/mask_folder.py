"""The files beside the masks of a folder: class names, settings, class scores, skipped images.

```
MASKS/NAME.png       indexed PNG, one per image; folders in NAME are kept
MASKS/classes.json   the class of every mask value, and all the settings that produced the masks
MASKS/scores.jsonl   one line per image: `name`, `scores` (class probabilities), `areas` (share of
                     the pixels that each class covers), `uncertainty` and its `uncertainty_parts`,
                     `tags` if they chose the classes, and the image's file and size
MASKS/skipped.json   names of the images that could not be read
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from tag2mask.errors import DataError, RunError, is_printable
from tag2mask.io.files import write_atomically, write_text
from tag2mask.io.json_files import FileSchema, read_json, read_lines, read_object
from tag2mask.io.palette import voc_palette
from tag2mask.types import BACKGROUND, IGNORE, Mask, Prediction

CLASSES_FILE = "classes.json"
SCORES_FILE = "scores.jsonl"
SKIPPED_FILE = "skipped.json"
_CLASSES_ADVICE = (
    'it names the class of each mask value: {"classes": ["cat", "dog"]}, without background'
)
_SKIPPED_ADVICE = "remove it and write the masks again: it names the images without a mask"
Share = Annotated[float, Field(ge=0, le=1)]


class _Classes(FileSchema):
    """The file `classes.json`."""

    classes: Annotated[list[str], Field(min_length=1, max_length=IGNORE - 1)]
    class_source: str | None = None
    settings: dict[str, Any] = Field(default={})

    @field_validator("classes")
    @classmethod
    def _check_names(cls, names: list[str]) -> list[str]:
        """Require names that differ and can be shown."""
        for name in names:
            if not name.strip() or not is_printable(name):
                raise ValueError(f"{name!r} is no name of a class")
            if names.count(name) > 1:
                raise ValueError(f"'{name}' occurs twice")
        return names


class _ScoreRow(FileSchema):
    """One line of `scores.jsonl`."""

    name: str
    scores: dict[str, float] = Field(default={})
    areas: dict[str, Share] = Field(default={})
    uncertainty: float = 0.0
    uncertainty_parts: dict[str, float] = Field(default={})
    tags: list[str] = Field(default=[])
    image: str = ""
    folder: str = ""


def read_classes(folder: Path) -> dict[str, Any]:
    """Read the `classes.json` of a mask folder.

    Raises:
        DataError: If it is missing or damaged, or has no list of class names.
    """
    path = folder / CLASSES_FILE
    return read_object(path, _Classes, advice=_CLASSES_ADVICE)


def read_class_names(folder: Path) -> tuple[str, ...]:
    """Read the class names of mask values 1, 2, ... from `classes.json`; empty without the file.

    Raises:
        DataError: If the file is damaged.
    """
    if not (folder / CLASSES_FILE).is_file():
        return ()
    return tuple(read_classes(folder)["classes"])


def write_classes(folder: Path, described: Mapping[str, Any]) -> None:
    """Write `classes.json`.

    Args:
        folder: Created if missing.
        described: From `describe_classes`.

    Raises:
        RunError: If the disk is full or writing is not allowed.
    """
    text = json.dumps(dict(described), indent=1, ensure_ascii=False)
    write_text(folder / CLASSES_FILE, f"{text}\n")


def describe_classes(
    class_names: Sequence[str], class_source: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the contents of `classes.json` as it will be read back.

    Args:
        class_names: Foreground names in the order of mask values 1..F.
        class_source: Where the classes of the masks come from.
        settings: All the settings that produce the masks, as plain values.
    """
    values = {
        "classes": list(class_names),
        "background": BACKGROUND,
        "ignore": IGNORE,
        "class_source": class_source,
        "settings": dict(settings),
        "palette": [voc_palette()[value].tolist() for value in range(len(class_names) + 1)],
    }
    described: dict[str, Any] = json.loads(json.dumps(values))  # tuples become lists
    return described


def describe_image(name: str, path: Path | None, size: tuple[int, ...]) -> dict[str, Any]:
    """Return what a row of `scores.jsonl` says about the image of a mask.

    Args:
        name: Path of the image inside its folder, without suffix.
        path: The image file; None if the image has no file.
        size: (H, W) in pixels.
    """
    described: dict[str, Any] = {"width": size[1], "height": size[0]}
    if path is not None:
        folder = path.absolute().parents[name.count("/")]
        described["image"] = path.absolute().relative_to(folder).as_posix()
        described["folder"] = folder.resolve().as_posix()
    return described


def score_row(
    name: str, prediction: Prediction, tags: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what `scores.jsonl` says about one image; numbers have six digits.

    Args:
        name: Of the image.
        prediction: Its mask and scores.
        tags: The tags that chose the classes; None if the classifier chose them.
    """
    row: dict[str, Any] = {
        "name": name,
        "scores": _rounded(prediction.scores),
        "areas": _rounded(class_areas(prediction.mask, prediction.class_names)),
    }
    if prediction.uncertainty is not None:
        row["uncertainty"] = round(prediction.uncertainty.total, 6)
        row["uncertainty_parts"] = _rounded(prediction.uncertainty.parts)
    return row if tags is None else row | {"tags": list(tags)}


def class_areas(mask: Mask, class_names: Sequence[str]) -> dict[str, float]:
    """Return the share of all pixels of a mask, in (0, 1], of each class that has a pixel."""
    pixels = np.bincount(mask.ravel(), minlength=256)
    return {
        name: float(pixels[value] / mask.size)
        for value, name in enumerate(class_names, start=1)
        if pixels[value]
    }


def append_scores(folder: Path, row: Mapping[str, Any]) -> None:
    """Add the row of one image to `scores.jsonl`.

    Args:
        folder: Mask folder.
        row: From `score_row`, with `describe_image`.

    Raises:
        RunError: If the disk is full or writing is not allowed.
    """
    path = folder / SCORES_FILE
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(score_line(row))
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error


def tidy_scores(folder: Path, is_done: Callable[[str], bool]) -> None:
    """Drop the rows of `scores.jsonl` without a finished mask, repeats and a torn last line.

    Args:
        folder: Mask folder.
        is_done: Whether the mask of an image is finished.

    Raises:
        RunError: If the disk is full or writing is not allowed.
    """
    write_scores(folder, [row for name, row in read_scores(folder).items() if is_done(name)])


def write_scores(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the rows of `scores.jsonl`.

    Raises:
        RunError: If the disk is full or writing is not allowed.
    """

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(score_line(row) for row in rows)

    write_atomically(folder / SCORES_FILE, write)


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the rows of `scores.jsonl` by image name; the last row of a name counts.

    A torn line, which a killed process leaves, is skipped. Empty without the file.

    Raises:
        DataError: If the file cannot be read.
    """
    return {row["name"]: row for row in score_rows(folder / SCORES_FILE)}


def score_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file like `scores.jsonl` in its order, without torn lines.

    Raises:
        DataError: If the file cannot be read.
    """
    return read_lines(path, _ScoreRow)


def score_line(row: Mapping[str, Any]) -> str:
    """Return a row as a line of `scores.jsonl`."""
    return f"{json.dumps(row, ensure_ascii=False)}\n"


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: round(value, 6) for key, value in values.items()}


def read_skipped(folder: Path) -> frozenset[str]:
    """Names of images that have no mask in a folder because they could not be read.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / SKIPPED_FILE
    if not path.exists():
        return frozenset()
    names = read_json(path, advice=_SKIPPED_ADVICE)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: needs a list of names; {_SKIPPED_ADVICE}")
    return frozenset(names)


def write_skipped(folder: Path, names: Sequence[str]) -> None:
    """Record the images that could not be read.

    Raises:
        RunError: If the disk is full or writing is not allowed.
    """
    if names:
        write_text(folder / SKIPPED_FILE, json.dumps(list(names), ensure_ascii=False) + "\n")
    else:
        (folder / SKIPPED_FILE).unlink(missing_ok=True)
