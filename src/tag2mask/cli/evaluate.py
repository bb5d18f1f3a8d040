"""Score masks against true masks: IoU per class and its mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tag2mask.cli.parsing import parse, reject_no_workers
from tag2mask.types import Report


@dataclass(frozen=True)
class Evaluate:
    """Score masks against true masks: IoU per class and its mean."""

    predictions: tyro.conf.Positional[Path]
    """Folder of masks that `label` or `predict` wrote; its classes.json tells gate and settings. Of
    a run with stages: the masks of the last that labels."""
    truth: tyro.conf.Positional[Path]
    """Folder of true masks, or the root of a data set in VOC layout."""
    json: Path | None = None
    """Also write the scores to this file."""
    split: str | None = None
    """Score this list only: a name in ImageSets/Segmentation, or a text file, one name per line."""
    limited: bool = False
    """Score only the images that have a prediction, in place of refusing a missing one."""
    workers: int | None = None
    """Threads that read masks; none: as many as there are processor cores."""


def run(arguments: Sequence[str]) -> None:
    """Print the table of scores and write them where asked."""
    chosen = parse(Evaluate, arguments, "evaluate")
    reject_no_workers(chosen.workers)

    from tag2mask.checkpoint import stage_folder
    from tag2mask.evaluation.folders import evaluate_folder
    from tag2mask.evaluation.tables import save_report

    predictions = stage_folder(chosen.predictions, "label")
    if predictions != chosen.predictions:
        print(f"masks: {predictions}, the last stage that labels")
    report = evaluate_folder(
        predictions,
        chosen.truth,
        split=chosen.split,
        limited=chosen.limited,
        workers=chosen.workers,
    )
    print_scores(report)
    if chosen.json is not None:
        save_report(report, chosen.json)
        print(f"scores: {chosen.json}")


def print_scores(report: Report) -> None:
    """Print IoU per class, and under it, unwrapped, what one must know to compare it."""
    from rich.console import Console

    from tag2mask.evaluation.tables import report_table

    table = report_table(report)
    told, table.caption = table.caption, None
    Console().print(table)
    print(told)
