"""Time the parts against plain references, each beside its own in the same run."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from tag2mask.cli.parsing import parse
from tag2mask.cli.summary import docstring_summary
from tag2mask.errors import Tag2MaskError, did_you_mean

FOLDER = "benchmarks"
ENTRY = "comparisons"
"""A script of the folder is a benchmark if it defines a function of this name."""

FILE_WIDTH = 150
"""Characters of a line of the table where it goes to a file."""


@dataclass(frozen=True)
class Bench:
    """Time the parts against plain references, each beside its own in the same run.

    Runs the scripts of the folder `benchmarks` of a checkout; nothing else should use the machine
    meanwhile.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Benchmarks to run; none: all."""
    json: Path | None = None
    """Also write all numbers to this file."""


def run(arguments: Sequence[str]) -> None:
    """Run the scripts one after the other, then print one table."""
    chosen = parse(Bench, arguments, "bench")
    scripts = find_scripts(find_folder())
    for name in chosen.names:
        if name not in scripts:
            raise Tag2MaskError(
                f"unknown benchmark '{name}'.{did_you_mean(name, scripts)} "
                f"Known: {', '.join(scripts)}"
            )
    records: dict[str, dict[str, Any]] = {}
    problems = []
    for name in chosen.names or scripts:
        print(f"{name}: {docstring_summary(scripts[name])}", file=sys.stderr, flush=True)
        try:
            records[name] = run_script(scripts[name])
        except Tag2MaskError as error:
            problems.append(str(error))
    print_table(records)
    if chosen.json is not None:
        from tag2mask.io.files import write_text

        write_text(chosen.json, json.dumps({"cores": os.cpu_count(), **records}, indent=1) + "\n")
        print(f"numbers: {chosen.json}")
    if problems:
        raise Tag2MaskError("\n".join(problems))


def find_folder() -> Path:
    """Find the benchmarks: of the checkout this package is installed from, or of this folder.

    Raises:
        Tag2MaskError: If there is neither.
    """
    for root in (Path(__file__).parents[3], Path.cwd()):
        if find_scripts(root / FOLDER):
            return root / FOLDER
    raise Tag2MaskError(
        f"no folder '{FOLDER}' here: the benchmarks come with the source, not with the package; "
        "go to a checkout of the repository and start again"
    )


def find_scripts(folder: Path) -> dict[str, Path]:
    """Map names to scripts that compare times, found by reading them; empty without the folder."""
    return {path.stem: path for path in sorted(folder.glob("*.py")) if _is_benchmark(path)}


def run_script(script: Path) -> dict[str, Any]:
    """Run one script in a process of its own and return what it writes.

    Raises:
        Tag2MaskError: If it fails, with the last line that it printed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "record.json")
        ended = subprocess.run(
            [sys.executable, str(script), "--json", str(out)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode or not out.is_file():
            told = (ended.stderr.strip() or ended.stdout.strip()).splitlines() or ["no message"]
            raise Tag2MaskError(f"benchmark {script.stem} failed: {told[-1].strip()}")
        record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return record


def print_table(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print every comparison: our value, the reference beside it, their ratio and its limit."""
    from rich.console import Console
    from rich.table import Table

    table = Table("benchmark", "what")
    for title in ("ours", "reference", "theirs", "ours / theirs", "at most"):
        words = title == "reference"
        table.add_column(title, justify="left" if words else "right", no_wrap=not words)
    for name, record in records.items():
        table.add_section()
        for row in record.get("table", ()):
            most, ratio = row["most"], row["ratio"]
            style = "" if most is None else "green" if ratio <= most else "red"
            values = (f"{row[key]:,.2f} {row['unit']}" for key in ("ours", "theirs"))
            ours, theirs = values
            limit = "" if most is None else f"{most:g}"
            shown = f"[{style}]{ratio:.3f}[/]" if style else f"{ratio:.3f}"
            table.add_row(name, row["what"], ours, row["reference"], theirs, shown, limit)
    console = Console()
    if not console.is_terminal:  # a file has room for whole numbers
        console.width = FILE_WIDTH
    console.print(table)


def _is_benchmark(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == ENTRY for node in tree.body)
