"""What `label` and `predict` share: the keys they accept and what they print."""

from __future__ import annotations

import shlex
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
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help="List of a VOC layout, split of COCO, or part (train, val, all) of a folder; "
        "default: the list that the run trained on, or the complete folder.",
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
OverlaysOption = Annotated[
    bool,
    typer.Option(
        "--overlays",
        help="Also write a gallery of all masks over their images, overlays/index.html in DIR.",
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
    if warning := half_trained(folder, run):
        print(f"warning: {warning}", file=sys.stderr)


def half_trained(folder: Path, run: str) -> str | None:
    """Return a line about a network that took fewer steps than its recipe; None if it is finished.

    Args:
        folder: Of the network; a hub model has no record of its steps.
        run: Run folder as the user named it.
    """
    from tag2mask.errors import RunError
    from tag2mask.io.run_files import read_metrics

    try:
        metrics = read_metrics(folder / "metrics.json")
    except RunError:
        return None
    done, total = metrics.get("step", 0), metrics.get("steps", 0)
    if metrics.get("finished") or done >= total:
        return None
    return (
        f"{folder} trained {done:,} of {total:,} steps, so its masks are those of a half-trained "
        f"network; finish it: tag2mask train --resume {shlex.quote(run)}"
    )


def print_summary(summary: WriteSummary, out: Path, *, overlays: bool = False) -> None:
    """Print what was written and skipped, what the folder contains, and the next command."""
    from tag2mask.inference.mask_summary import summary_lines

    for line in summary.unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    already = f", {summary.already} were there already" if summary.already else ""
    count = len(summary.unreadable)
    skipped = f", {count} unreadable images skipped" if summary.unreadable else ""
    print(f"{summary.written} masks written to {out}{already}{skipped}")
    for line in summary_lines(summary.masks):
        print(line)
    if overlays:
        print(f"gallery: {out / 'overlays' / 'index.html'}")
    coco = out.with_name(f"{out.name}.json")
    words = ["tag2mask", "export", str(out), "--format", "coco", "--out", str(coco)]
    print(f"next:    {shlex.join(words)}")
