import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import tyro

from tag2mask.cli.parsing import parse, reject_no_workers
from tag2mask.errors import Tag2MaskError


@dataclass(frozen=True)
class Grammar:
    """Do the thing."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path
    """Where to."""
    weights: Literal["best", "last"] = "best"
    """Which."""
    strict: bool = False
    """Stop early."""


def test_arguments_fill_the_dataclass():
    chosen = parse(Grammar, ["R", "--out", "O", "--weights", "last", "--strict"], "label")
    assert chosen == Grammar(Path("R"), Path("O"), "last", True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["missing", "RUN", "--out"]),
        (["R"], ["missing", "--out", "Where to."]),
        (["R", "--out", "O", "--weights", "bst"], ["'bst'", "--weights", "'best'"]),
        (["R", "--out", "O", "--weigths", "best"], ["--weigths", "Perhaps you meant", "--weights"]),
        (["R", "S", "--out", "O"], ["S"]),
        (["R", "--out"], ["--out"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_each_problem_is_one_line_that_leads_to_the_help(arguments, words, encoding, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # decides what frames are made of
    monkeypatch.setattr(sys, "stdout", shown)
    with pytest.raises(Tag2MaskError) as caught:
        parse(Grammar, arguments, "label")
    line = str(caught.value)
    assert all(word in line for word in words), line
    assert line.endswith("(see: tag2mask label --help)")
    assert "\n" not in line
    assert not line.startswith(("Required options", "Invalid choice", "Parsing error"))  # titles
    assert not any("\u2500" <= letter <= "\u257f" for letter in line)
    assert "---" not in line
    assert shown.buffer.tell() == 0


def test_help_shows_every_argument_and_the_extra_text(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Grammar, ["--help"], "label", more_help="And mind this.")
    assert not stop.value.code
    shown = capsys.readouterr().out
    for text in ("tag2mask label", "Do the thing.", "And mind this.", "Run folder.", "--weights"):
        assert text in shown


def test_less_than_one_worker_is_rejected():
    for fine in (1, None):
        reject_no_workers(fine)
    with pytest.raises(Tag2MaskError, match="--workers: takes a number from 1 on, got 0"):
        reject_no_workers(0)
