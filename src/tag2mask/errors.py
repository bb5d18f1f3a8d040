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
└── MissingExtraError      an optional part is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Tag2MaskError(Exception):
    """A mistake that the user can mend; the message says what is wrong, where, and what to do.

    The command line prints the message and exits with `exit_code`.
    """

    exit_code: int = 2


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
        hint = did_you_mean(name, names)
        super().__init__(f"unknown {kind} '{name}'.{hint} Known: {', '.join(names)}")


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
