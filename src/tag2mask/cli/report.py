"""Write one self-contained HTML page about a run: scores, curves, strips, pair maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tag2mask.cli.parsing import parse


@dataclass(frozen=True)
class Page:
    """Write one self-contained HTML page about a run: scores, curves, strips, pair maps."""

    run: tyro.conf.Positional[Path]
    """Run folder that `train` or `demo` wrote."""
    query: tuple[float, float] | None = None
    """Place from which attention and affinity are shown, as fractions of each image from its left
    and its top, such as 0.5 0.3; left out: the cell of strongest evidence."""


def run(arguments: Sequence[str]) -> None:
    """Write the page and say where it is."""
    chosen = parse(Page, arguments, "report")

    from tag2mask.checkpoint import stage_folder
    from tag2mask.report.page import write_report

    run = stage_folder(chosen.run, "train")
    if run != chosen.run:
        print(f"run:    {run}, the last stage that trains")
    print(f"report: {write_report(run, chosen.query)}")
