"""Read JSON and JSON Lines that a person, another program or a crash may have damaged.

Stricter than `json.loads`: NaN and infinity, numbers beyond 64 bits, a key that occurs twice, half
characters and deep nesting are refused, because the code behind a reader does not expect them.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from tag2mask.errors import DataError, Tag2MaskError, shorten
from tag2mask.io.text_files import MEBIBYTE, MOST_BYTES, open_regular, read_text

DEEPEST = 50
"""Lists and objects inside each other."""
LONGEST_LINE = 16 * MEBIBYTE
"""Bytes of the longest line of a JSON Lines file."""
_LARGEST = 2**63
_HARMFUL = re.compile(r"[\x00\ud800-\udfff]")
_LONGEST_KEY = 60


class FileSchema(BaseModel):
    """Base of what a JSON file must contain; other keys are allowed, values are not converted."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


def read_json(
    path: Path,
    kind: type[Tag2MaskError] = DataError,
    *,
    advice: str = "",
    most_bytes: int = MOST_BYTES,
) -> object:
    """Read one JSON file.

    Args:
        path: The file.
        kind: What to raise.
        advice: How to mend it, added to each message.
        most_bytes: Size of the largest file that is read.

    Raises:
        Tag2MaskError: Of `kind`, in one line.
    """
    text = read_text(path, kind, advice=advice, most_bytes=most_bytes)
    try:
        return parse_json(text)
    except ValueError as error:
        end = f"; {advice}" if advice else ""
        raise kind(f"{path}: is not valid JSON ({error}){end}") from error


def read_object(
    path: Path,
    schema: type[FileSchema] = FileSchema,
    kind: type[Tag2MaskError] = DataError,
    *,
    advice: str = "",
) -> dict[str, Any]:
    """Read one JSON object and check it; it is returned as it stands in the file.

    Args:
        path: The file.
        schema: What it must contain.
        kind: What to raise.
        advice: How to mend it, added to each message.

    Raises:
        Tag2MaskError: Of `kind`, in one line.
    """
    values = read_json(path, kind, advice=advice)
    if problem := find_problem(values, schema):
        end = f"; {advice}" if advice else ""
        raise kind(f"{path}: {problem}{end}")
    assert isinstance(values, dict)
    return values


def read_lines(path: Path, schema: type[FileSchema] = FileSchema) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file that programs append to; empty without the file.

    A line that is not complete, as a killed process leaves it, or does not fit is skipped.

    Args:
        path: The file.
        schema: What each object must contain.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        with open_regular(path) as stream:
            while line := stream.readline(LONGEST_LINE):
                values = parse_line(line, schema)
                if values is not None:
                    yield values
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def parse_json(text: str) -> object:
    """Read JSON; see the module for what is refused.

    Raises:
        ValueError: Saying what is wrong, in a few words.
    """
    try:
        value: object = json.loads(
            text, object_pairs_hook=unique_keys, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg}, line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ValueError(f"more than {DEEPEST} lists and objects inside each other") from error
    _check_values(value)
    return value


def parse_line(line: bytes, schema: type[FileSchema] = FileSchema) -> dict[str, Any] | None:
    """Read a line of a JSON Lines file; None if it is not complete or does not fit."""
    try:
        values = parse_json(line.decode("utf-8-sig"))
    except ValueError:
        return None
    return None if find_problem(values, schema) or not isinstance(values, dict) else values


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs.

    Raises:
        ValueError: If a key occurs twice, which would lose one of the values.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, number in counts.items() if number > 1)
        raise ValueError(f"key '{shorten(twice, _LONGEST_KEY)}' occurs twice")
    return values


def find_problem(values: object, schema: type[FileSchema]) -> str:
    """Return what is wrong with the contents of a file; empty if nothing is."""
    if not isinstance(values, dict):
        return "is not a JSON object"
    try:
        schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = shorten(".".join(map(str, first["loc"])), _LONGEST_KEY)
        return f"{key}: {first['msg'].removeprefix('Value error, ')}"
    return ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _check_values(value: object) -> None:
    """Raise ValueError for nesting, numbers and texts that would fail later."""
    level: list[Any] = [value]
    for depth in range(DEEPEST + 1):
        inner: list[Any] = []
        if depth == DEEPEST and any(isinstance(one, dict | list) for one in level):
            raise ValueError(f"more than {DEEPEST} lists and objects inside each other")
        for one in level:
            if isinstance(one, dict):
                inner += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                inner += one
            else:
                _check_scalar(one)
        level = inner


def _check_scalar(value: object) -> None:
    """Raise ValueError for a number or text that would fail later."""
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError("a whole number beyond 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number beyond the largest float")
    if isinstance(value, str) and _HARMFUL.search(value):
        raise ValueError("a text with a zero byte or half a character")
