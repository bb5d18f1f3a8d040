"""What `label` and `predict` share: the keys they accept and what they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imports torch, which --help need not load
    from tag2mask.inference.writer import WriteSummary

KEY_SECTIONS = ("predict", "refiner", "data", "method")
"""Sections of a recipe whose keys may change after training."""


def print_network(run: str) -> None:
    """Print which network of a run with stages is used."""
    from tag2mask.checkpoint import stage_folder

    folder = stage_folder(Path(run), "train")
    if folder != Path(run):
        print(f"network: {folder}, the last stage that trains")


def print_summary(summary: WriteSummary, out: object) -> None:
    """Print how many masks were written or already there, and which images were unreadable."""
    for line in summary.unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    already = f", {summary.already} were there already" if summary.already else ""
    count = len(summary.unreadable)
    skipped = f", {count} unreadable images skipped" if summary.unreadable else ""
    print(f"{summary.written} masks written to {out}{already}{skipped}")
