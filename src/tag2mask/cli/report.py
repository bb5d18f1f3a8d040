"""Write one self-contained HTML page about a run: how good its masks are, pictures, curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  tag2mask report RUN
  tag2mask report RUN --masks MASKS --truth DATA/masks
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
            help="Folder that `label` or `predict` wrote, which the page shows; default: the "
            "newest one in RUN, or beside it if this run made it.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            metavar="TRUTH",
            help="True masks to compare with, as `evaluate` reads them; default: those that the "
            "masks were scored against, or those of the data.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Seed of the choice of random images.")
    ] = 1,
) -> None:
    """Write one self-contained HTML page about a run: how good its masks are, pictures, curves.

    The page needs no network connection. Of a run with stages it shows all of them.
    """
    from tag2mask.report.page import write_report

    print(f"report: {write_report(folder, query, masks, truth=truth, seed=seed)}")
