"""Time the parts against plain references, each beside its own in the same run.

Runs the scripts of this folder one after the other and prints one table. Nothing else should use
the machine meanwhile.

Run: python benchmarks/run.py [NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from row import add_entry, run_as_command
from tag2mask.cli.summary import docstring_summary
from tag2mask.errors import Tag2MaskError, did_you_mean

FOLDER = Path(__file__).parent
ENTRY = "comparisons"
"""A script of the folder is a benchmark if it defines a function of this name."""

FILE_WIDTH = 150
"""Characters of a line of the table where it goes to a file."""


def run(names: Sequence[str], path: Path | None) -> None:
    """Run benchmarks and print one table of all comparisons.

    Args:
        names: Benchmarks to run; none: all.
        path: Results file that gets an entry per benchmark; other entries in it stay.

    Raises:
        Tag2MaskError: If a name is unknown, before anything runs; or if benchmarks failed, after
            the table of the others.
    """
    scripts = find_scripts(FOLDER)
    for name in names:
        if name not in scripts:
            raise Tag2MaskError(
                f"unknown benchmark '{name}'.{did_you_mean(name, scripts)} "
                f"Known: {', '.join(scripts)}"
            )
    records: dict[str, dict[str, Any]] = {}
    failures = []
    for name in names or scripts:
        print(f"{name}: {docstring_summary(scripts[name])}", file=sys.stderr, flush=True)
        try:
            records[name] = run_script(scripts[name])
        except Tag2MaskError as error:
            failures.append(str(error))
            continue
        if path is not None:
            add_entry(path, name, records[name])
    print_table(records)
    if path is not None:
        print(f"numbers: {path}")
    if failures:
        raise Tag2MaskError("\n".join(failures))


def find_scripts(folder: Path) -> dict[str, Path]:
    """Map names to scripts that compare times, found by reading them."""
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
            output = (ended.stderr.strip() or ended.stdout.strip()).splitlines() or ["no message"]
            raise Tag2MaskError(f"benchmark {script.stem} failed: {output[-1].strip()}")
        record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return record | {"command": f"python benchmarks/{script.name}"}


def print_table(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print every comparison: our value, the reference beside it, their ratio and its limit."""
    table = Table("benchmark", "what")
    for title in ("ours", "reference", "theirs", "ours / theirs", "at most"):
        words = title == "reference"
        table.add_column(title, justify="left" if words else "right", no_wrap=not words)
    for name, record in records.items():
        table.add_section()
        for row in record.get("table", ()):
            most, ratio = row["most"], row["ratio"]
            style = "" if most is None else "green" if ratio <= most else "red"
            ours, theirs = (f"{row[key]:,.2f} {row['unit']}" for key in ("ours", "theirs"))
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


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; none: all")
    parser.add_argument("--json", type=Path, help="results file that gets an entry per benchmark")
    args = parser.parse_args()
    run(args.names, args.json)


if __name__ == "__main__":
    run_as_command(main)
