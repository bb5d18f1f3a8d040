"""Write one self-contained HTML page about a run: scores, curves, strips, affinity maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  tag2mask report RUN
  tag2mask report RUN --masks MASKS
  tag2mask report RUN --query 0.5 0.3"""


def run(
    folder: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Run folder that `train` or `demo` wrote."),
    ],
    query: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--query",
            metavar="X Y",
            help="Point whose attention and affinity the page shows, as fractions of the width "
            "from the left and of the height from the top; default: the pixel of the "
            "strongest CAM.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            metavar="MASKS",
            help="Folder that `label` or `predict` wrote, which the page summarizes; default: the "
            "newest one in RUN.",
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML page about a run: scores, curves, strips, affinity maps.

    The page needs no network connection.
    """
    from tag2mask.checkpoint import stage_folder
    from tag2mask.report.page import write_report

    trained = stage_folder(folder, "train")
    if trained != folder:
        print(f"run:    {trained}, the last stage that trains")
    print(f"report: {write_report(trained, query, masks)}")
