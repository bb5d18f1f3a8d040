"""Define every error that a user can cause; each has one clear line and mostly exit code 2.

Tag2MaskError
├── DataError              images, tags, masks, lists
│   └── NothingHeldOutError    the recipe holds out no image; training then computes no scores
├── RecipeError            a recipe or an override: unknown key, value out of range, unreadable YAML
│   └── UnknownPluginError     no plug-in of the folder has the name
├── WeightsError           weights missing, of another architecture, unreadable
├── RunError               a run folder is missing, incomplete or cannot be written
│   ├── LockedError            another process works in the folder
│   ├── LostProcessError       a process of this command died; the same line again may do (code 75)
│   └── StoppedError           a signal stopped the run; it can be resumed (code 128 + signal)
├── MissingExtraError      an optional part is not installed
└── RefusedError           a request that the web page refuses (`app.refusals`)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST_LINE = 2_000
"""Characters of the longest problem that is shown in full."""
_LONGEST_NAME = 100
"""Characters of the longest mistyped name that is compared with the known ones."""
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, line separators, marks of writing direction, halves of characters."""


class Tag2MaskError(Exception):
    """A mistake that the user can mend; each problem says what is wrong, where, and what to do.

    The command line prints a line per problem and exits with `exit_code`. Names in a problem come
    from files, so control characters are escaped and long problems are cut: no name can forge a
    line or change the terminal.

    Attributes:
        problems: One printable line each.
    """

    exit_code: int = 2

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(printable(shorten(problem, LONGEST_LINE)) for problem in problems)
        super().__init__(*self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class DataError(Tag2MaskError):
    """Images, tags, masks or lists are missing, unreadable or contradict each other."""


class NothingHeldOutError(DataError):
    """The recipe holds out no image; unlike an unreadable held-out list, this is allowed."""


class RecipeError(Tag2MaskError):
    """A recipe or an override cannot be used. Each problem is one line."""


class UnknownPluginError(RecipeError):
    """No plug-in of a folder has the name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        hint, shown = did_you_mean(name, names), shorten(name, _LONGEST_NAME)
        super().__init__(f"unknown {kind} '{shown}'.{hint} Known: {', '.join(names)}")


class WeightsError(Tag2MaskError):
    """Weights are missing, unreadable or belong to another architecture."""


class RunError(Tag2MaskError):
    """A run folder is missing, incomplete or cannot be written."""


class LockedError(RunError):
    """Another process works in the folder."""


class LostProcessError(RunError):
    """A process that the command needs died; nothing is lost, the same line may succeed."""

    exit_code = 75
    """`EX_TEMPFAIL`, by which schedulers know that trying again makes sense."""


class StoppedError(RunError):
    """A signal, such as Ctrl-C, stopped a run; the message says how to resume it."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class MissingExtraError(Tag2MaskError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str) -> None:
        super().__init__(f"this needs an extra: pip install 'tag2mask[{extra}]'")


def printable(text: str) -> str:
    r"""Escape what would end the line or command the terminal.

    Example:
        >>> print(printable("a\x1b[31m\nb"))
        a\x1b[31m\nb
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_printable(text: str) -> bool:
    """Return whether a text needs no escapes to be shown on one line."""
    return _UNPRINTABLE.search(text) is None


def shorten(text: str, longest: int) -> str:
    """Cut the middle of a text that is longer than `longest` characters.

    Example:
        >>> shorten("abcdefghij", 6)
        'abc...hij'
    """
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or an empty string."""
    if len(name) > _LONGEST_NAME:
        return ""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
