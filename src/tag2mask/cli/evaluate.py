"""Score masks against true masks: IoU per class and mean IoU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tag2mask.types import Report

EXAMPLES = """\
  tag2mask evaluate MASKS TRUTH
  tag2mask evaluate MASKS VOCdevkit/VOC2012 --split val --json scores.json
  tag2mask evaluate RUN TRUTH --limited --by-size"""
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help="Score the images of this list only: a name in ImageSets/Segmentation, or a text "
        "file with one image name per line.",
    ),
]
BySize = Annotated[
    bool,
    typer.Option(
        "--by-size",
        help="Also score objects by their true area, from the smallest to the largest quarter: "
        "number, mean IoU, median of predicted over true area. An object is all pixels of one "
        "class in one image.",
    ),
]


def run(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="Folder of masks that `label` or `predict` wrote, with its classes.json; or a run "
            "with stages, whose last label stage counts.",
        ),
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH",
            help="Folder of true masks, or the root of a data set in VOC layout.",
        ),
    ],
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write the scores to this file."),
    ] = None,
    split: Split = None,
    limited: Annotated[
        bool,
        typer.Option(
            "--limited",
            help="Score only images that have a prediction; otherwise a missing one is an error.",
        ),
    ] = False,
    by_size: BySize = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", min=1, help="Threads that read masks; default: one per core."
        ),
    ] = None,
) -> None:
    """Score masks against true masks: IoU per class and mean IoU.

    Pixels of value 255 in the true masks do not count.
    """
    from tag2mask.checkpoint import stage_folder
    from tag2mask.evaluation.folders import evaluate_folder
    from tag2mask.evaluation.tables import save_report

    folder = stage_folder(predictions, "label")
    if folder != predictions:
        print(f"masks: {folder}, the last stage that labels")
    report = evaluate_folder(
        folder, truth, split=split, limited=limited, by_size=by_size, workers=workers
    )
    print_scores(report)
    if json is not None:
        save_report(report, json)
        print(f"scores: {json}")


def print_scores(report: Report) -> None:
    """Print IoU per class, objects by size, and on an unwrapped line the settings behind them.

    A warning follows if the true masks lack classes.
    """
    from rich.console import Console

    from tag2mask.evaluation.tables import report_table, size_table, truth_warning

    table = report_table(report)
    settings, table.caption = table.caption, None
    Console().print(table)
    if report.by_size:
        Console().print(size_table(report))
    print(settings)
    if warning := truth_warning(report):
        print(f"warning: {warning}", file=sys.stderr)
