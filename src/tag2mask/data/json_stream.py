"""A large JSON file read value by value: only the value at hand is in memory, never the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tag2mask.errors import DataError

_BLOCK = 1 << 22
"""Bytes read at once."""
_MARK = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"[-+.0-9eE]+")
_DECODER = json.JSONDecoder()


class Element(NamedTuple):
    """One value of a list, and the bytes of the file that it stands in."""

    value: Any
    start: int
    end: int


class JSONStream:
    """The members of the object that a JSON file holds, in their order.

    Letters outside ASCII are wrong in what it returns (each byte is taken for a letter, so that
    places in the text are places in the file); who wants such text reads the element's bytes.

    Raises:
        DataError: If the file cannot be opened; methods: if it is no JSON object or ends too early.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
            mark = self._file.read(len(_MARK))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        self._text = "" if mark == _MARK else mark.decode("latin-1")
        self._base = len(mark) - len(self._text)
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def members(self) -> Iterator[str]:
        """Yield the names of the members; each is to be read by `value` or `elements` at once."""
        self._take("{")
        if self._peek() != "}":
            while True:
                name = self.value()
                self._take(":")
                yield str(name)
                if self._peek() != ",":
                    break
                self._take(",")
        self._take("}")

    def value(self) -> Any:
        """Read one value whole."""
        return self._element().value

    def is_list(self) -> bool:
        """Whether the value at hand is a list."""
        return self._peek() == "["

    def elements(self) -> Iterator[Element]:
        """Yield the values of the list at hand one by one."""
        self._take("[")
        if self._peek() != "]":
            while True:
                yield self._element()
                if self._peek() != ",":
                    break
                self._take(",")
        self._take("]")

    def _element(self) -> Element:
        """Read the value at hand; more of the file comes in until it is whole."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._more():
                    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                    raise self._problem(reason) from error
                continue
            number = _NUMBER.match(self._text, self._at)
            if number and number.end() == len(self._text) and self._more():  # it may go on
                continue
            found = Element(value, self._base + self._at, self._base + end)
            self._at = end
            return found

    def _peek(self) -> str:
        """The next letter that is no space; empty at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, letter: str) -> None:
        """Go past a letter that must come now."""
        found = self._peek()
        if found != letter:
            raise self._problem(f"'{letter}' expected" + (f", not '{found}'" if found else ""))
        self._at += 1

    def _more(self) -> bool:
        """Read on, forgetting what has been read; twice as much each time that a value needs it."""
        rest = self._text[self._at :]
        try:
            block = self._file.read(max(_BLOCK, len(rest)))
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror})") from error
        self._base += self._at
        self._at = 0
        self._text = rest + block.decode("latin-1")
        return bool(block)

    def _problem(self, reason: str) -> DataError:
        """What to tell of a file that is no JSON from here on."""
        return DataError(
            f"{self._path}: is cut off or no readable JSON ({reason}, "
            f"byte {self._base + self._at:,} of {self._path.stat().st_size:,})"
        )
