"""Check a data set before training: classes, counts, problems, advice."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tag2mask.errors import DataError

if TYPE_CHECKING:  # imports image libraries, which --help need not load
    from tag2mask.data.validation import CheckReport

EXAMPLES = """\
  tag2mask check DATA
  tag2mask check VOCdevkit/VOC2012 --strict
  tag2mask check RUN DATA"""


def run(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder of tagged images: COCO format, VOC layout, tags.csv, tags.jsonl or a "
            "folder per class. Or a run folder, to find images with wrong tags.",
        ),
    ],
    tagged: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Behind a run: the tagged images to check; default: those that it trained on.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Count unreadable images as problems, as data.strict=true does."
        ),
    ] = False,
) -> None:
    """Check a data set before training: classes, counts, problems, advice.

    Problems that would stop training end the check with exit code 2. Otherwise it prints the
    options with which `train` reads the data.

    With a run folder in front, it lists the images whose tags are probably wrong or missing, judged
    by classifiers that did not train on them.
    """
    if (data / "recipe.yaml").is_file():
        from tag2mask.cli.tag_errors import check_tags

        check_tags(str(data), tagged)
        return
    if tagged is not None:
        raise DataError(f"{data}: is not a run (no recipe.yaml); give one folder, or RUN DATA")
    from rich.console import Console
    from rich.table import Table

    from tag2mask.data.validation import check_folder

    report = check_folder(data, strict=strict)
    if report.images:
        print("\n".join(summary_lines(report)))
        table = Table("class", "images", "share")
        for name, images in report.classes.items():
            table.add_row(name, f"{images:,}", f"{report.share(name):.0%}")
        Console().print(table)
    for line in report.warnings:
        print(f"warning: {line}")
    if report.problems:
        raise DataError("\n".join(report.problems))
    print(f"ready: tag2mask train RECIPE {shlex.join(training_keys(report, data))} --out RUN")


def summary_lines(report: CheckReport) -> Iterator[str]:
    """Yield lines that summarize a data set."""
    yield f"{report.root}: {report.images:,} images, read as '{report.source}'"
    parts = ", ".join(f"{name} {images:,}" for name, images in report.parts.items())
    yield f"parts: {parts}"
    counts = ", ".join(f"{images:,} with {tags}" for tags, images in report.tags_per_image.items())
    yield f"images by number of tags: {counts}; {report.negatives:,} show no class (negatives)"
    if report.sizes:
        sizes = ", ".join(f"{width} x {height}" for width, height in report.sizes)
        yield f"smallest, median and largest image in pixels: {sizes}"
    yield f"masks: {report.masks:,}, unreadable images: {report.unreadable:,}"


def training_keys(report: CheckReport, root: Path) -> list[str]:
    """Return the recipe keys with which `train` reads the data."""
    keys = [f"data.name={report.source}", f"data.root={root}"]
    if report.source == "coco":
        training = [name for name, images in report.parts.items() if images and "train" in name]
        keys.append(f"data.split={training[0] if training else next(iter(report.parts))}")
    return keys
