"""Run the rows of a paper's table and print the paper's numbers beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tag2mask.errors import Tag2MaskError

KEY_SECTIONS = ("data", "backbone", "method", "refiner", "optim", "predict", "run", "stages")
EXAMPLES = """\
  tag2mask reproduce
  tag2mask reproduce rml_1 --data animals --dry-run
  tag2mask reproduce rml_1 --data animals --seeds 1,2,3 data.root=DATA backbone.weights=WEIGHTS
  tag2mask reproduce afa_2 --data voc --rows cam,par data.root=VOCdevkit/VOC2012"""
TableName = Annotated[
    str | None,
    typer.Argument(
        metavar="TABLE",
        help="Name of a bundled table, or a YAML file; without it, the tables are listed.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", metavar="DIR", help="Folder for runs and results; an interrupted row resumes."
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=1,
        help="Score at most N images of each list.",
    ),
]


def run(
    ctx: typer.Context,
    table: TableName = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME", help="Data set: animals, voc, coco."),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option("--rows", metavar="A,B", help="Run these rows only; default: all."),
    ] = None,
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="1,2", help="Random seeds of each row.")
    ] = "1",
    out: Out = Path("reproduced"),
    limit: Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the rows and their commands; run nothing.")
    ] = False,
) -> None:
    """Run the rows of a paper's table and print the paper's numbers beside ours.

    Rows of methods that are not part of tag2mask show the paper's number only. Finished rows are
    skipped; an interrupted one resumes. KEY=VALUE words change the recipe of every row; a row's own
    changes win. With another optim.steps, warm-ups that count steps change in proportion. The GPU
    is used if there is one.
    """
    from tag2mask.reproduction.reproduce import open_reproduction, table_lines
    from tag2mask.reproduction.runner import Runner

    if table is None:
        for line in table_lines():
            print(line)
        return
    if data is None:
        raise Tag2MaskError("missing: --data NAME (see: tag2mask reproduce --help)")
    reproduction = open_reproduction(
        table,
        data,
        Runner(out, limit, _print_now),
        rows=None if rows is None else _items(rows),
        seeds=_numbers(seeds),
        overrides=ctx.obj.overrides,
        command=ctx.obj.command,
    )
    if dry_run:
        for line in reproduction.planned_lines():
            print(line)
        return

    from rich.console import Console

    reproduction.run()
    reproduction.save()
    Console().print(reproduction.shown())
    print(f"tables: {reproduction.markdown_file}, {reproduction.json_file}")


def _items(text: str) -> list[str]:
    """Split a list at its commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _numbers(text: str) -> list[int]:
    """Read the random seeds."""
    items = _items(text)
    if not items or not all(item.isdigit() for item in items):
        raise Tag2MaskError(f"--seeds {text}: give whole numbers with commas, such as 1,2,3")
    return list(dict.fromkeys(int(item) for item in items))


def _print_now(line: str) -> None:
    """Print one line about a row at once, between the lines of training."""
    print(line, flush=True)
