"""Choose thresholds and refiner on a few true masks, or by agreement without any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tag2mask.cli.inference import RunArgument, SplitOption, WeightsOption, print_network

if TYPE_CHECKING:
    from tag2mask.evaluation.tuning import Comparison, Tuning

EXAMPLES = """\
  tag2mask tune RUN DATA
  tag2mask tune RUN VOCdevkit/VOC2012 --split train --limit 50
  tag2mask tune RUN DATA --crf --dry-run"""


def run(
    folder: RunArgument,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder of tagged images. Those with a true mask count; if fewer than two have "
            "one, settings are chosen by agreement, which is weaker.",
        ),
    ],
    split: SplitOption = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="N", min=2, help="Largest number of images, spread evenly."
        ),
    ] = 100,
    crf: Annotated[
        bool,
        typer.Option(
            "--crf", help="Also compare the dense CRF, as refiner and as last step; slow."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the choice, and write nothing.")
    ] = False,
    weights: WeightsOption = "best",
) -> None:
    """Choose thresholds and refiner on a few true masks, or by agreement without any.

    Background score and its rule, refiner and final CRF get the values with the highest mean IoU,
    classes from tags; then the class threshold, classes from the classifier. A value changes only
    if choosing also pays on images that did not take part (cross-validation). The choice and all
    scores go into RUN/tune.json, which label, predict and export read; the recipe of the run
    stays as it was. Remove the file to return to the trained values.
    """
    from tag2mask.evaluation.tune_run import tune

    print_network(folder)
    tuning = tune(
        folder, data, split=split, limit=limit, crf=crf, dry_run=dry_run, which=weights,
        notify=_print_now,
    )  # fmt: skip
    print_tuning(tuning)
    if dry_run:
        print("nothing written (--dry-run)")
        return
    from tag2mask.checkpoint import stage_folder
    from tag2mask.inference.tuned import TUNE_FILE

    print(f"written: {stage_folder(Path(folder), 'train') / TUNE_FILE}")
    print(f"next:    tag2mask label {folder} {data} --out MASKS")


def print_tuning(tuning: Tuning) -> None:
    """Print what was compared, what was chosen, and what that is worth."""
    count = len(tuning.names)
    if tuning.by == "masks":
        print(f"{count} true masks")
    else:
        print(f"no true masks: chosen by agreement on {count} images, which is weaker")
    for comparison in tuning.comparisons:
        for line in describe(comparison):
            print(line)


def describe(comparison: Comparison) -> list[str]:
    """Return the lines about one comparison."""
    lines = [
        f"{comparison.name}: {comparison.criterion}, {comparison.images} images",
        f"  now    {comparison.present_score:.4f}  {comparison.present}",
        f"  best   {comparison.best_score:.4f}  {comparison.best}",
    ]
    if comparison.validated is not None and comparison.spread is not None:
        low, high = comparison.spread
        lines.append(
            f"  on images that did not choose: {comparison.validated:.4f} "
            f"(parts {low:.4f} to {high:.4f})"
        )
    if comparison.adopted:
        lines.append(f"  chosen: {comparison.best}")
    elif comparison.best == comparison.present:
        lines.append("  kept: it is the best")
    else:
        lines.append("  kept: the best does not pay on images that did not choose it")
    return lines


def _print_now(line: str) -> None:
    """Print a line of progress at once."""
    print(line, flush=True)
