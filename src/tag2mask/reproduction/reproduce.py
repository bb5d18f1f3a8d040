"""Reproduce a table: run its rows, and write the table so far after each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table as RichTable

from tag2mask.config.overrides import Overrides
from tag2mask.io.files import write_text
from tag2mask.reproduction.plan import PlannedRow, plan_rows
from tag2mask.reproduction.runner import Runner, list_name
from tag2mask.reproduction.summary import (
    RowResult,
    group_results,
    markdown,
    record,
    rich_table,
)
from tag2mask.reproduction.table import Table, available_tables, load_table


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The rows of one table on one data set."""

    name: str
    table: Table
    data: str
    row_ids: list[str]
    plans: list[PlannedRow]
    runner: Runner
    command: str
    """Command line, for the records."""

    @property
    def json_file(self) -> Path:
        """File with all numbers, times and settings."""
        return self.runner.out / f"{self.name}_{self.data}.json"

    @property
    def markdown_file(self) -> Path:
        """File with the table for readers."""
        return self.json_file.with_suffix(".md")

    @property
    def title(self) -> str:
        """Heading of the table."""
        return f"{self.table.title}: {self.table.source}, on {self.data}"

    def run(self) -> None:
        """Train and score all rows; whatever is finished is skipped.

        Raises:
            Tag2MaskError: If a row cannot be trained or scored; finished rows are kept.
        """
        for position, plan in enumerate(self.plans, start=1):
            name = self.table.row_name(plan.row_id)
            title = f"row {position} of {len(self.plans)}: {name}, seed {plan.seed}"
            self.runner.notify(title)
            self.runner.finish(plan)
            self.save()

    def save(self) -> None:
        """Write the table as far as it is finished, as JSON and as Markdown."""
        results = self._results()
        names = {"command": self.command, "table": self.name, "data": self.data}
        values = record(self.table, names, self.row_ids, results)
        write_text(self.json_file, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        text = markdown(self.table, self.title, self.row_ids, results, self.command)
        write_text(self.markdown_file, text)

    def shown(self) -> RichTable:
        """Return the table as far as it is finished, for the terminal."""
        return rich_table(self.table, self.title, self.row_ids, self._results())

    def planned_lines(self) -> Iterator[str]:
        """Yield what would run: per row its masks and the command that trains the same network."""
        for plan in self.plans:
            settings = plan.settings
            state = "to do" if self.runner.read_scores(plan) is None else "finished"
            yield (
                f"{plan.row_id}, seed {plan.seed} ({state}): {settings.masks}, classes from "
                f"{settings.class_source}, {list_name(settings.split)}, threshold from "
                f"{list_name(settings.threshold_split)}"
            )
            yield f"  {plan.train_command(self.runner.run_folder(plan))}"
            if settings.inference:
                changes = " ".join(f"{key}={text}" for key, text in settings.inference.items())
                yield f"  then, to make masks: {changes}"
        planned = {plan.row_id for plan in self.plans}
        for row_id in self.row_ids:
            if row_id not in planned:
                yield f"{row_id}: the paper's number only"

    def _results(self) -> dict[str, RowResult]:
        found = {
            (plan.row_id, plan.seed): scores
            for plan in self.plans
            if (scores := self.runner.read_scores(plan)) is not None
        }
        return group_results(self.plans, found)


def open_reproduction(
    name: str,
    data: str,
    runner: Runner,
    *,
    rows: list[str] | None = None,
    seeds: Sequence[int] = (1,),
    overrides: Overrides | None = None,
    command: str = "",
) -> Reproduction:
    """Read a table and plan its rows; nothing runs.

    Args:
        name: Bundled table, or a YAML file.
        data: Data set, one of those that the table names.
        runner: Runs and remembers the rows.
        rows: Keys of rows; None for all.
        seeds: Random seeds.
        overrides: Changes of every recipe, by dotted key.
        command: Command line, for the records.

    Raises:
        RecipeError: If the table, a row or a recipe cannot be used.
    """
    table = load_table(name)
    row_ids = table.select_rows(rows)
    plans = plan_rows(table, data, row_ids, seeds, overrides or {})
    return Reproduction(Path(name).stem, table, data, row_ids, plans, runner, command)


def table_lines() -> Iterator[str]:
    """Yield one line per bundled table: name, what it compares, and the data sets it runs on."""
    tables = {name: load_table(name) for name in available_tables()}
    width = max(map(len, tables), default=0) + 2
    for name, table in tables.items():
        data_sets = ", ".join(table.data_sets()) or "the paper's numbers only"
        yield f"{name:<{width}}{table.source}: {table.title} ({data_sets})"
