"""Write one self-contained HTML page about a run: curves, scores per class, sample strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tag2mask.cli.parsing import parse


@dataclass(frozen=True)
class Page:
    """Write one self-contained HTML page about a run: curves, scores per class, sample strips."""

    run: tyro.conf.Positional[Path]
    """Run folder that `train` or `demo` wrote."""


def run(arguments: Sequence[str]) -> None:
    """Write the page and say where it is."""
    chosen = parse(Page, arguments, "report")

    from tag2mask.report.page import write_report

    print(f"report: {write_report(chosen.run)}")
