"""What `label` and `predict` share: the keys they accept and what they print."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
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
ShardsOption = Annotated[
    int | None,
    typer.Option(
        "--shards",
        metavar="N",
        min=1,
        help="Divide the images into N shards that any scheduler can start; see --shard.",
    ),
]
ShardOption = Annotated[
    int | None,
    typer.Option(
        "--shard",
        metavar="I",
        min=0,
        help="Do shard I of --shards, from 0 on. The one that finishes last merges all.",
    ),
]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--engine",
        help="local: this machine; ray: all shards on a Ray cluster, in --workers actors.",
    ),
]
KEY_SECTIONS = ("predict", "refiner", "data", "method", "backbone")
"""Sections of a recipe whose keys may change after training."""


SHOWN_SHARDS = 8
"""Unfinished shards that the summary names."""


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
    which = ""
    if (shard := summary.shard) is not None:
        which = f"shard {shard.number} of {shard.count}: "
    print(f"{which}{summary.written} masks written to {out}{already}{skipped}")
    if summary.unfinished:
        print(f"not finished yet: {name_shards(summary.unfinished)}; the last one merges all")
        return
    for line in summary_lines(summary.masks):
        print(line)
    if overlays:
        print(f"gallery: {out / 'overlays' / 'index.html'}")
    coco = out.with_name(f"{out.name}.json")
    words = ["tag2mask", "export", str(out), "--format", "coco", "--out", str(coco)]
    print(f"next:    {shlex.join(words)}")


def name_shards(numbers: Sequence[int]) -> str:
    """Return the numbers of shards as words, the first ones only if they are many.

    Example:
        >>> name_shards([3]), name_shards(range(20))
        ('shard 3', 'shards 0, 1, 2, 3, 4, 5, 6, 7 and 12 more')
    """
    first = ", ".join(map(str, numbers[:SHOWN_SHARDS]))
    more = len(numbers) - SHOWN_SHARDS
    return f"shard{'s' if len(numbers) > 1 else ''} {first}" + (
        f" and {more} more" if more > 0 else ""
    )
