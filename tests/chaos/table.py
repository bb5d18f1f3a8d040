"""Write the results of the trials into the table of docs/reliability.md.

Run: python -m tests.chaos.table
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos.run import trial_names

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results" / "chaos.json"
PAGE = REPOSITORY / "docs" / "reliability.md"
BEGIN, END = "<!-- trials: python -m tests.chaos.table -->", "<!-- end of trials -->"
HEADER = ("| failure, and what must hold | tried | departures | command |", "|---|---|---|---|")


def table(results: Mapping[str, Any]) -> str:
    """Return the table of all trials; those without a complete run are "not yet run"."""
    lines = [*HEADER]
    for name in trial_names():
        module = importlib.import_module(f"tests.chaos.{name}")
        holds = (module.__doc__ or "").splitlines()[0].rstrip(".")
        found = results.get(name)
        if found is None or found["short"]:
            tried = departures = "not yet run"
        else:
            tried, departures = _tried(found), str(len(found["problems"]))
        lines.append(f"| {holds} | {tried} | {departures} | `python -m tests.chaos.run {name}` |")
    return "\n".join(lines)


def page_with(page: str, results: Mapping[str, Any]) -> str:
    """Return the page with the table of these results."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table(results)}\n{END}{rest.split(END)[1]}"


def read_results() -> dict[str, Any]:
    """Read the results of all trials; empty if there are none."""
    if not RESULTS.is_file():
        return {}
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def _tried(found: Mapping[str, Any]) -> str:
    """Say how often, and of what."""
    parts = [
        f"{name} {value}"
        for fact in ("kills", "images")
        for name, value in found.get(fact, {}).items()
    ]
    return f"{found['tried']:,}" + (f" ({', '.join(parts)})" if parts else "")


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), read_results()), encoding="utf-8")
