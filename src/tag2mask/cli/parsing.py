"""Plain arguments of a command: a dataclass is the grammar, tyro reads it, faults become a line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import TypeVar

import tyro

from tag2mask.errors import Tag2MaskError

T = TypeVar("T")
_FRAME = re.compile(r"[\u2500-\u257f]")


def parse(grammar: type[T], arguments: Sequence[str], verb: str, *, more_help: str = "") -> T:
    """Read a command's arguments into its dataclass; `--help` prints and ends the program.

    Args:
        grammar: Frozen dataclass whose attribute docstrings are the help texts.
        arguments: What follows the verb.
        verb: Shown in messages.
        more_help: Text under the summary of `--help`.

    Raises:
        Tag2MaskError: If the arguments do not fit, with what is wrong on one line.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                grammar,
                prog=f"tag2mask {verb}",
                description="\n\n".join(filter(None, (grammar.__doc__, more_help))),
                args=list(arguments),
                use_underscores=True,
                config=(tyro.conf.PositionalMetavarFromFieldName, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise Tag2MaskError(_one_line(complaint.getvalue(), verb)) from stop


def reject_no_workers(workers: int | None) -> None:
    """Raise a Tag2MaskError for less than one; None, as many as there are cores, is fine."""
    if workers is not None and workers < 1:
        raise Tag2MaskError(f"--workers: takes a number from 1 on, got {workers}")


def _one_line(complaint: str, verb: str) -> str:
    """Flatten tyro's framed message: the text without frame, title and pointer to the help."""
    rows = [_FRAME.sub("", line).strip() for line in complaint.splitlines()]
    rows = [row for row in rows if row.strip("-")]  # rules are of dashes where there is no UTF-8
    told = takewhile(lambda row: not row.startswith("For full helptext"), rows[1:] or rows)
    text = " ".join(told).replace(" (required)", "")
    text = text.replace(f"Missing from tag2mask {verb}", "missing")
    return f"{text} (see: tag2mask {verb} --help)"
