"""Run the benchmarks, each against its plain reference, and print one table.

The scripts of this folder run one after the other. Nothing else should use the machine meanwhile.

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
"""A script is a benchmark if it defines a function of this name."""

FILE_WIDTH = 150
"""Width of the table, in characters, if it is written to a file."""


def run(names: Sequence[str], path: Path | None) -> None:
    """Run benchmarks and print one table of all comparisons.

    Args:
        names: Benchmarks to run; all if empty.
        path: Results file that receives one entry per benchmark; its other entries are kept.

    Raises:
        Tag2MaskError: If a name is unknown, before any benchmark runs; or if a benchmark fails,
            after the table of the others is printed.
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
        print(f"results: {path}")
    if failures:
        raise Tag2MaskError("\n".join(failures))


def find_scripts(folder: Path) -> dict[str, Path]:
    """Map names to the benchmarks of a folder; scripts are parsed, not imported."""
    return {path.stem: path for path in sorted(folder.glob("*.py")) if _is_benchmark(path)}


def run_script(script: Path) -> dict[str, Any]:
    """Run one script in its own process and return its record.

    Raises:
        Tag2MaskError: If the script fails; quotes the last line that it printed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "record.json")
        process = subprocess.run(
            [sys.executable, str(script), "--json", str(out)],
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode or not out.is_file():
            output = (process.stderr.strip() or process.stdout.strip()).splitlines() or [
                "no message"
            ]
            raise Tag2MaskError(f"benchmark {script.stem} failed: {output[-1].strip()}")
        record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return record | {"command": f"python benchmarks/{script.name}"}


def print_table(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print every comparison: our value, the reference, its value, their ratio and the goal."""
    table = Table("benchmark", "case")
    for title in ("ours", "reference", "reference value", "ratio", "max ratio"):
        is_text = title == "reference"
        table.add_column(title, justify="left" if is_text else "right", no_wrap=not is_text)
    for name, record in records.items():
        table.add_section()
        for row in record.get("table", ()):
            goal, ratio = row["max_ratio"], row["ratio"]
            style = "" if goal is None else "green" if ratio <= goal else "red"
            ours, reference = (
                f"{row[key]:,.2f} {row['unit']}" for key in ("ours", "reference_value")
            )
            limit = "" if goal is None else f"{goal:g}"
            shown = f"[{style}]{ratio:.3f}[/]" if style else f"{ratio:.3f}"
            table.add_row(name, row["case"], ours, row["reference"], reference, shown, limit)
    console = Console()
    if not console.is_terminal:  # the default of 80 characters would wrap the names
        console.width = FILE_WIDTH
    console.print(table)


def _is_benchmark(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == ENTRY for node in tree.body)


def main() -> None:
    """Parse the command line and run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; default: all")
    parser.add_argument("--json", type=Path, help="results file; receives one entry per benchmark")
    args = parser.parse_args()
    run(args.names, args.json)


if __name__ == "__main__":
    run_as_command(main)
