"""Compare what two versions produced, and print it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

KINDS = ("weights", "losses", "masks", "class scores", "evaluation")
"""First word of a result's name, a column of the table."""
MOST_NAMES = 5
"""Tensors that a line names."""


def print_table(names: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]) -> int:
    """Print a row per case, then every difference; return the exit code."""
    widths = [max(map(len, names)), *(15 for _ in KINDS)]
    print(_row(["case", *KINDS], widths), "base s   new s")
    details: list[str] = []
    for name in names:
        cells, found = compare_case(old[name], new[name])
        details += [f"{name}: {line}" for line in found]
        seconds = f"{old[name]['seconds']:6.1f}  {new[name]['seconds']:6.1f}"
        print(_row([name, *cells], widths), seconds)
    print("\n".join(["", *details, "DIFFERENT" if details else "EQUAL"]))
    return 1 if details else 0


def print_results(names: Sequence[str], results: Mapping[str, Any]) -> int:
    """Print what each case produced, and what failed; return the exit code."""
    for name in names:
        case = results[name]
        print(f"{name}: {case['seconds']} s")
        for place, result in case["results"].items():
            print(f"    {place}: {result['remark']}")
        if case["failure"]:
            print(f"    FAILED: {case['failure']}")
    return 1 if any(results[name]["failure"] for name in names) else 0


def compare_case(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Compare what one case produced.

    Returns:
        A cell for each kind of result, and a line for each difference or failure.
    """
    lines = [
        f"{title} FAILED: {side['failure']}"
        for title, side in (("base", old), ("new", new))
        if side["failure"]
    ]
    first, second = old["results"], new["results"]
    names = first.keys() | second.keys()
    if lines:  # what a failed command did not produce is no difference of its own
        names = first.keys() & second.keys()
    cells = []
    for kind in KINDS:
        places = sorted(name for name in names if name.startswith(f"{kind} "))
        found = {place: compare(kind, first.get(place), second.get(place)) for place in places}
        different = [f"{place}: {text}" for place, text in found.items() if text]
        cells.append(_cell(len(places), len(different)))
        lines += different
    return cells, lines


def _cell(count: int, different: int) -> str:
    if different:
        return f"{different} of {count} DIFFER"
    return f"equal ({count})" if count else "-"


def compare(kind: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    """Say how one result differs; an empty text if it does not."""
    if old is None or new is None:
        return "only in the working tree" if old is None else "missing in the working tree"
    first, second = old["values"], new["values"]
    if kind == "weights":
        return compare_weights(first, second)
    keys = [key for key in first.keys() | second.keys() if first.get(key) != second.get(key)]
    if not keys:
        return ""
    begin = min(keys, key=lambda key: (len(key), key))
    values = "" if kind == "masks" else f": {first.get(begin)} became {second.get(begin)}"
    return f"{len(keys)} of {len(first)} differ, first {begin}{values}"


def compare_weights(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Compare the hashes of tensors, whatever the tensors are called."""
    before, now = Counter(old.values()), Counter(new.values())
    lost, come = before - now, now - before
    if not lost and not come:
        return ""
    named = [name for name, value in new.items() if value in come][:MOST_NAMES]
    return (
        f"{lost.total()} of {len(old)} tensors have no equal, {come.total()} are new "
        f"({', '.join(named)})"
    )


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
