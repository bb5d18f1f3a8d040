"""Put a table's numbers beside ours: for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table as RichTable

from tag2mask.reproduction.plan import PlannedRow
from tag2mask.reproduction.runner import Scores, list_name
from tag2mask.reproduction.table import HOURS, Table

SECONDS_PER_HOUR = 3600.0
HEADINGS = ("ours", "difference", "spread", "seeds", HOURS, "masks", "classes from", "list")


@dataclass(frozen=True, slots=True)
class RowResult:
    """Our numbers of one row, over its seeds."""

    plan: PlannedRow
    by_seed: Mapping[int, Scores]

    def values(self, split: str, class_source: str, kind: str) -> list[float]:
        """Return the mIoU of each seed in percent, where the row has this kind of mask."""
        found = []
        for scores in self.by_seed.values():
            by_kind = scores["scores"].get(list_name(split), {}).get(class_source, {})
            if kind in by_kind and by_kind[kind]["miou"] is not None:
                found.append(100 * by_kind[kind]["miou"])
        return found

    @property
    def headline(self) -> list[float]:
        """The mIoU of each seed that is compared with the paper, in percent."""
        settings = self.plan.settings
        return self.values(settings.split, settings.class_source, settings.masks)

    @property
    def hours(self) -> float:
        """Mean over the seeds of the hours of all stages."""
        total = [float(sum(scores["seconds"].values())) for scores in self.by_seed.values()]
        return statistics.mean(total) / SECONDS_PER_HOUR

    @property
    def classes(self) -> list[str]:
        """Names of the classes, background first."""
        return ["background", *next(iter(self.by_seed.values()))["classes"]]


def group_results(
    plans: Sequence[PlannedRow], scores: Mapping[tuple[str, int], Scores]
) -> dict[str, RowResult]:
    """Gather the scores by row; rows without any are left out.

    Args:
        plans: The rows that are ours, with each seed.
        scores: Finished scores by row and seed.
    """
    results: dict[str, RowResult] = {}
    for plan in plans:
        by_seed = {seed: found for (row, seed), found in scores.items() if row == plan.row_id}
        if by_seed:
            results.setdefault(plan.row_id, RowResult(plan, dict(sorted(by_seed.items()))))
    return results


def comparison_lines(
    table: Table, row_ids: Sequence[str], results: Mapping[str, RowResult]
) -> tuple[list[str], list[list[str]]]:
    """Return the headings and one line of text per row."""
    papers = [f"paper {column}" for column in table.columns]
    headings = ["row", *(papers if len(papers) > 1 else ["paper"]), *HEADINGS]
    return headings, [
        [
            table.row_name(row_id),
            *_paper_numbers(table, row_id),
            *_our_numbers(table, row_id, results),
        ]
        for row_id in row_ids
    ]


def rich_table(
    table: Table, title: str, row_ids: Sequence[str], results: Mapping[str, RowResult]
) -> RichTable:
    """Return the table for the terminal."""
    headings, lines = comparison_lines(table, row_ids, results)
    shown = RichTable(
        title=title,
        caption=f"paper: {table.data}",
        caption_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for heading in headings:
        is_text = heading in ("row", "masks", "classes from", "list")
        words = max(map(len, heading.split()))
        shown.add_column(heading, justify="left" if is_text else "right", min_width=words)
    for line in lines:
        shown.add_row(*map(escape, line))
    return shown


def markdown(
    table: Table,
    title: str,
    row_ids: Sequence[str],
    results: Mapping[str, RowResult],
    command: str,
) -> str:
    """Return the table, its class-wise rows and all other kinds of masks as Markdown."""
    parts = [f"# {title}", f"{table.source}. Paper: {table.data}, {table.metric}."]
    if table.note:
        parts.append(table.note)
    notes = [
        f"- {table.row_name(row_id)}: {table.rows[row_id].note}"
        for row_id in row_ids
        if table.rows[row_id].note
    ]
    parts += ["\n".join(notes)] if notes else []
    parts += [
        f"```bash\n{command}\n```",
        _markdown_table(*comparison_lines(table, row_ids, results)),
    ]
    parts.append(
        "Ours: mean over the seeds in percent; difference to the paper's first column; spread: "
        "largest minus smallest seed; hours of training, labeling and evaluation. Thresholds are "
        "chosen on the other list."
    )
    if results:
        parts += ["## All kinds of masks", _markdown_table(*_all_kinds(table, results))]
        parts += ["## Hours by stage", _markdown_table(*_stage_hours(table, results))]
    if results or table.classes:
        parts += ["## IoU per class", _markdown_table(*_class_lines(table, row_ids, results))]
    return "\n\n".join(parts) + "\n"


def record(
    table: Table,
    names: Mapping[str, str],
    row_ids: Sequence[str],
    results: Mapping[str, RowResult],
) -> dict[str, Any]:
    """Return everything as plain values for JSON.

    Args:
        table: Table of a paper.
        names: `command`, `table` and `data`.
        row_ids: Rows to include.
        results: Ours, by row.
    """
    rows = {}
    for row_id in row_ids:
        row = table.rows[row_id]
        rows[row_id] = {"name": table.row_name(row_id), "paper": row.paper}
        if row.iou:
            rows[row_id]["paper_iou"] = dict(zip(table.classes, row.iou, strict=True))
        if row_id in results:
            rows[row_id] |= _recorded_result(table, row_id, results[row_id])
    return {**names, "source": table.source, "paper": table.data, "rows": rows}


def _recorded_result(table: Table, row_id: str, result: RowResult) -> dict[str, Any]:
    settings = result.plan.settings
    mean, difference, spread = _compare(table, row_id, result)
    return {
        "recipe": settings.recipe,
        "masks": settings.masks,
        "class_source": settings.class_source,
        "split": list_name(settings.split),
        "threshold_split": list_name(settings.threshold_split),
        "ours": _rounded(mean),
        "difference": _rounded(difference),
        "spread": _rounded(spread),
        "hours": round(result.hours, 3),
        "seeds": {str(seed): scores for seed, scores in result.by_seed.items()},
    }


def _compare(
    table: Table, row_id: str, result: RowResult
) -> tuple[float | None, float | None, float | None]:
    """Return our mean, its difference to the paper and the spread over the seeds, in percent."""
    values = result.headline
    if not values:
        return None, None, None
    mean = statistics.mean(values)
    paper = table.rows[row_id].paper.get(table.columns[0])
    spread = max(values) - min(values) if len(values) > 1 else None
    return mean, None if paper is None else mean - paper, spread


def _paper_numbers(table: Table, row_id: str) -> list[str]:
    numbers = table.rows[row_id].paper
    return [_text(numbers.get(column)) for column in table.columns]


def _our_numbers(table: Table, row_id: str, results: Mapping[str, RowResult]) -> list[str]:
    """Return our half of a line; dashes for a row that is not ours or not finished."""
    if row_id not in results:
        return ["-"] * len(HEADINGS)
    result = results[row_id]
    settings = result.plan.settings
    mean, difference, spread = _compare(table, row_id, result)
    return [
        _text(mean),
        "-" if difference is None else f"{difference:+.1f}",
        _text(spread),
        str(len(result.by_seed)),
        f"{result.hours:.2f}",
        _kind_text(settings.masks, result),
        settings.class_source,
        list_name(settings.split),
    ]


def _all_kinds(table: Table, results: Mapping[str, RowResult]) -> tuple[list[str], list[list[str]]]:
    """Return every kind of mask of every row, on both lists and with both class sources."""
    some = next(iter(results.values()))
    lists = list(next(iter(some.by_seed.values()))["scores"])
    columns = [(split, source) for split in lists for source in ("tags", "classifier")]
    headings = ["row", "masks", *(f"{split}, {source}" for split, source in columns)]
    lines = []
    for row_id, result in results.items():
        by_source = next(iter(result.by_seed.values()))["scores"].values()
        kinds = dict.fromkeys(kind for one in by_source for found in one.values() for kind in found)
        for kind in kinds:
            values = [result.values(split, source, kind) for split, source in columns]
            texts = [_text(statistics.mean(found)) if found else "-" for found in values]
            lines.append([table.row_name(row_id), _kind_text(kind, result), *texts])
    return headings, lines


def _stage_hours(
    table: Table, results: Mapping[str, RowResult]
) -> tuple[list[str], list[list[str]]]:
    lines = []
    for row_id, result in results.items():
        for seed, scores in result.by_seed.items():
            hours = [f"{spent / SECONDS_PER_HOUR:.3f}" for spent in scores["seconds"].values()]
            device = scores["machine"]["device"]
            lines.append([table.row_name(row_id), str(seed), *hours, device])
    return ["row", "seed", "training", "labeling", "evaluation", "device"], lines


def _class_lines(
    table: Table, row_ids: Sequence[str], results: Mapping[str, RowResult]
) -> tuple[list[str], list[list[str]]]:
    """Return the IoU per class of the paper's rows and of ours, one line per class."""
    columns: dict[str, Mapping[str, float]] = {}
    for row_id in row_ids:
        row, name = table.rows[row_id], table.row_name(row_id)
        if row.iou:
            columns[f"{name}, paper"] = dict(zip(table.classes, row.iou, strict=True))
        if row_id in results:
            columns[f"{name}, ours"] = _mean_iou(results[row_id])
    classes = list(dict.fromkeys(name for column in columns.values() for name in column))
    lines = [[name, *(_text(column.get(name)) for column in columns.values())] for name in classes]
    return ["class", *columns], lines


def _mean_iou(result: RowResult) -> dict[str, float]:
    """Return the mean over the seeds of the IoU of each class in percent."""
    settings = result.plan.settings
    found: dict[str, list[float]] = {name: [] for name in result.classes}
    for scores in result.by_seed.values():
        by_kind = scores["scores"][list_name(settings.split)].get(settings.class_source, {})
        iou = by_kind.get(settings.masks, {"iou": []})["iou"]
        for name, value in zip(result.classes, iou, strict=False):
            found[name] += [] if value is None else [100 * value]
    return {name: statistics.mean(values) for name, values in found.items() if values}


def _kind_text(kind: str, result: RowResult) -> str:
    """Return a kind of mask with the name of the row's refiner."""
    refiner = result.plan.settings.inference.get("refiner.name")
    if refiner is None and result.plan.recipe.refiner is not None:
        refiner = result.plan.recipe.refiner.name
    return kind.replace("refiner", refiner or "refiner")


def _markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
