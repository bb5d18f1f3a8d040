"""Check a data set before training: counts, duplicates, problems, advice."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tag2mask.errors import DataError, printable

if TYPE_CHECKING:  # imports image libraries, which --help need not load
    from tag2mask.data.checks.report import CheckReport

EXAMPLES = """\
  tag2mask check DATA
  tag2mask check DATA --html check.html --json check.json
  tag2mask check VOCdevkit/VOC2012 --strict
  tag2mask check RUN DATA --json tags.json"""
_MOST_CLASSES = 40
_MOST_PAIRS = 6
_MOST_NAMES = 3


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
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write everything found as JSON."),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with small pictures of suspect images."
        ),
    ] = None,
) -> None:
    """Check a data set before training: counts, duplicates, problems, advice.

    Problems that would stop training end the check with exit code 2. Otherwise its last line is
    the command that trains on the data.

    With a run folder in front, it lists the images whose tags are probably wrong or missing, judged
    by classifiers that did not train on them.
    """
    if is_run(data):
        from tag2mask.cli.tag_errors import check_tags

        if html_file is not None or strict:
            raise DataError("--html and --strict check a data set; behind a run, give --json only")
        check_tags(str(data), tagged, json_file)
        return
    if tagged is not None:
        raise DataError(f"{data}: is not a run; give one folder, or RUN DATA")
    _check_data(data, strict, json_file, html_file)


def is_run(folder: Path) -> bool:
    """Return whether a folder is one that training wrote, rather than a data set."""
    trained = [*folder.glob("weights"), *folder.glob("*/weights")]  # of a run, or of its stages
    return (folder / "recipe.yaml").is_file() and bool(trained)


def _check_data(data: Path, strict: bool, json_file: Path | None, html_file: Path | None) -> None:
    """Check a folder of tagged images, print the result and write the files.

    Raises:
        DataError: With one line per problem that stops training.
    """
    from tag2mask.data.checks.report import as_json
    from tag2mask.data.validation import check_folder
    from tag2mask.io.files import write_text

    with _progress() as advance:
        report = check_folder(data, strict=strict, progress=advance)
    command = training_command(data)
    if json_file is not None:
        values = as_json(report, command)
        write_text(json_file, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    if html_file is not None:
        from tag2mask.report.data_check import write_check_page

        write_check_page(report, html_file, command)
    if report.images:
        print("\n".join(summary_lines(report)))
        _print_classes(report)
    for file in (json_file, html_file):
        if file is not None:
            print(f"written: {file}")
    for severity, lines in (("note", report.notes), ("warning", report.warnings)):
        for line in lines:
            print(f"{severity}: {line}")
    if report.problems:
        raise DataError(*report.problems)
    print(f"ready: {command}")


def training_command(data: Path) -> str:
    """Return the line that trains on a folder, into a run folder that does not exist yet."""
    names = ("RUN", *(f"RUN{number}" for number in range(2, 1000)))
    out = next(name for name in names if not Path(name).exists())
    return shlex.join(["tag2mask", "train", str(data), "--out", out])


def summary_lines(report: CheckReport) -> Iterator[str]:
    """Yield lines that summarize a data set."""
    yield f"{report.root}: {report.images:,} images, read as '{report.source}'"
    for part, described in report.parts.items():
        names = ", ".join(map(printable, described.names[:_MOST_NAMES]))
        more = len(described.names) - _MOST_NAMES
        listed = f" ({names}{f' and {more:,} more' if more > 0 else ''})" if names else ""
        yield f"{printable(part)}: {len(described.names):,} images{listed}"
    if report.groups:
        yield f"groups: {report.groups:,}; none is both learned from and held out"
    counts = ", ".join(f"{images:,} with {tags}" for tags, images in report.tags_per_image.items())
    yield f"images by number of tags: {counts}; {report.negatives:,} show no class (negatives)"
    if report.sizes:
        sizes = ", ".join(f"{width} x {height}" for width, height in report.sizes)
        yield f"smallest, median and largest image in pixels: {sizes}"
    yield f"masks: {report.masks:,}, unreadable images: {report.unreadable:,}"
    if report.pairs:
        pairs = [f"{first} + {second} {n:,}" for first, second, n in report.pairs[:_MOST_PAIRS]]
        yield f"most often together: {', '.join(pairs)}"


def _print_classes(report: CheckReport) -> None:
    """Print a table of the classes, the most frequent first, by parts."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    parts = list(report.parts)
    table = Table("class", "images", "share", *map(escape, map(printable, parts)))
    ordered = sorted(report.classes.items(), key=lambda item: -item[1])
    for name, images in ordered[:_MOST_CLASSES]:
        in_parts = [f"{report.parts[part].classes.get(name, 0):,}" for part in parts]
        table.add_row(escape(name), f"{images:,}", f"{report.share(name):.0%}", *in_parts)
    Console().print(table)
    if len(ordered) > _MOST_CLASSES:
        print(f"and {len(ordered) - _MOST_CLASSES:,} more classes (all: --json FILE)")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], object]]:
    """Show a bar with the time left on standard error; nothing without a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
