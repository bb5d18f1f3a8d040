"""What `label` and `predict` share: the keys they accept and what they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:  # imports torch, which --help need not load
    from tag2mask.inference.writer import WriteSummary

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Run folder that `train` or `demo` wrote, or a Hugging Face id."
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for masks, classes.json and scores; finished images are skipped.",
    ),
]
WeightsOption = Annotated[
    Literal["best", "last"], typer.Option("--weights", help="Weights of the run to use.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Stop at an unreadable image; otherwise skip it.")
]
WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Processes that make masks on the CPU, one image and one thread each. With a network "
        "on a GPU, they refine its masks.",
    ),
]
KEY_SECTIONS = ("predict", "refiner", "data", "method", "backbone")
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
