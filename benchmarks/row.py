"""Measure, print and record comparisons, each with a reference of the same run.

A benchmark is a script of this folder with a function `comparisons` that returns `Row`s. It takes
`--json FILE` and needs no other argument; `make bench` reads what it writes there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tag2mask.cli.main import exit_code
from tag2mask.errors import RunError


class Row(NamedTuple):
    """One comparison."""

    case: str
    ours: float
    reference: str
    """Name of the reference."""
    reference_value: float
    unit: str = "ms"
    max_ratio: float | None = None
    """Goal: the largest acceptable `ours / reference_value`; None if there is no goal."""


def shortest_times(jobs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Measure the shortest milliseconds of each job.

    Every round runs every job once; one more round warms up. The shortest time counts because other
    work on the machine only adds to a time.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(values[1:]) for name, values in times.items()}


def check_gap(case: str, gap: float, tolerance: float) -> float:
    """Return the difference of two results; exit if it exceeds the tolerance."""
    if not gap <= tolerance:
        raise RunError(f"{case}: results differ by {gap:.1e}; their times cannot be compared")
    return gap


def command() -> str:
    """Return the command line of this process, for records."""
    return shlex.join(["python", *sys.argv])


def run_as_command(main: Callable[[], object]) -> None:
    """Run a script; user errors print one line and exit with code 2, as in the command line."""
    raise SystemExit(exit_code(main))


def show(rows: Sequence[Row]) -> None:
    """Print one line per row."""
    for row in rows:
        ratio = row.ours / row.reference_value
        goal = "" if row.max_ratio is None else f" (goal: at most {row.max_ratio:g})"
        print(
            f"{row.case:44s} {row.ours:9.2f} {row.unit}  {row.reference} "
            f"{row.reference_value:9.2f} {row.unit}  ratio {ratio:.3f}{goal}"
        )


def save(path: Path | None, rows: Sequence[Row], /, **details: Any) -> None:
    """Write the rows, the command, the machine and further details as JSON, if there is a path."""
    if path is None:
        return
    record = {
        "command": command(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "table": [row._asdict() | {"ratio": row.ours / row.reference_value} for row in rows],
        **details,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def add_entry(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Write an entry into a results file under its name and keep the other entries.

    Lists of plain values take one line each, so that files stay readable and diffs short.
    """
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    text = json.dumps(entries | {name: entry}, indent=1)
    flat = re.sub(r"\[[^][{}]*\]", lambda match: re.sub(r"\n +", " ", match[0]), text)
    path.write_text(flat + "\n", encoding="utf-8")
