"""What `make bench` reads: times beside a reference of the same run, as rows of a JSON file.

A benchmark is a script of this folder with a function `comparisons` that returns such rows; it
takes `--json FILE` and needs no other argument.
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


class Row(NamedTuple):
    """One comparison."""

    what: str
    ours: float
    reference: str
    """Name of what it is compared with."""
    theirs: float
    unit: str = "ms"
    most: float | None = None
    """Largest ours / theirs that is good enough, where one was set."""


def by_turns(jobs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Shortest milliseconds of each job; every round runs all once, after one to warm up.

    The shortest, as other work on the machine only ever adds to a time.
    """
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            spent[name].append(1e3 * (time.perf_counter() - began))
    return {name: min(values[1:]) for name, values in spent.items()}


def reject_gap(what: str, gap: float, most: float) -> float:
    """Return the difference of two results; stops where times would mean nothing."""
    if not gap <= most:
        raise SystemExit(f"{what}: results differ by {gap:.1e}: times mean nothing")
    return gap


def command() -> str:
    """What was typed, for records."""
    return shlex.join(["python", *sys.argv])


def run_as_command(main: Callable[[], object]) -> None:
    """Run a script; a mistake of its user is one line and exit code 2, as in the command line."""
    raise SystemExit(exit_code(main))


def show(rows: Sequence[Row]) -> None:
    """Print one line per row."""
    for row in rows:
        ratio = row.ours / row.theirs
        aim = "" if row.most is None else f" (at most {row.most:g})"
        print(
            f"{row.what:44s} {row.ours:9.2f} {row.unit}  {row.reference} {row.theirs:9.2f} "
            f"{row.unit}  ratio {ratio:.3f}{aim}"
        )


def save(path: Path | None, rows: Sequence[Row], /, **details: Any) -> None:
    """Write the rows, the command, the machine and further details as JSON; None: nowhere."""
    if path is None:
        return
    record = {
        "command": command(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "table": [row._asdict() | {"ratio": row.ours / row.theirs} for row in rows],
        **details,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def add_entry(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Put an entry into a results file under its name; other entries stay as they are.

    Lists of plain values take one line each, so that the file can be read and compared.
    """
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    text = json.dumps(entries | {name: entry}, indent=1)
    flat = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\n +", " ", found[0]), text)
    path.write_text(flat + "\n", encoding="utf-8")
