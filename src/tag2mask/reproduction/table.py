"""Read a table of a paper: its numbers, and for rows that are ours the recipe and its changes.

A table is a YAML file of the folder `tables`. Its key `runs` says, per data set, what the rows
share; a row adds its own changes. A row without a recipe for a data set has the paper's number
only.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from tag2mask.config.messages import validation_errors
from tag2mask.config.overrides import parse_overrides
from tag2mask.errors import RecipeError, did_you_mean
from tag2mask.inference.candidate_masks import CAM, KINDS
from tag2mask.io.yaml_files import read_yaml
from tag2mask.types import ClassSource

TABLE_FOLDER = Path(__file__).parents[1] / "tables"
MIOU = "mIoU"
"""Column of a table whose rows give one number."""
HOURS = "hours"
"""Column that is compared with our hours."""


def _as_overrides(words: object) -> object:
    """Split a line of words KEY=VALUE, as typed on a command line, into values by dotted key."""
    return parse_overrides(shlex.split(words)) if isinstance(words, str) else words


def _as_columns(numbers: object) -> object:
    """Turn a single number into the number of the column `mIoU`."""
    return numbers if isinstance(numbers, dict) else {MIOU: numbers}


Words = Annotated[dict[str, str], BeforeValidator(_as_overrides)]
Numbers = Annotated[dict[str, float | None], BeforeValidator(_as_columns)]


class Strict(BaseModel):
    """Base of the parts of a table: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RunSettings(Strict):
    """What is trained for a row on one data set, and how its masks are scored."""

    recipe: str | None = None
    """Bundled recipe or YAML file; none: the row has the paper's number only."""
    stage: str | None = None
    """Stage whose network is scored, of a recipe with stages; none: the last one that trains."""
    set: Words = {}
    """Changes of the recipe, as words KEY=VALUE."""
    inference: Words = {}
    """Changes of the trained network's recipe, which train nothing: refiner, predict, method."""
    masks: str = CAM
    """Kind of mask that is compared with the paper."""
    class_source: ClassSource = "tags"
    """Where the classes of these masks come from."""
    split: str = "val"
    """List of images whose scores are compared with the paper."""
    threshold_split: str = "train"
    """List of images that chooses the background threshold; never the reported one."""


class Row(Strict):
    """One row of a table."""

    name: str = ""
    """What the paper calls the row; empty: its key in the file."""
    paper: Numbers = {}
    """The paper's numbers by column; none where the paper gives no number."""
    iou: tuple[float, ...] = ()
    """The paper's IoU per class, in the order of the table's `classes`."""
    set: Words = {}
    """Changes of the table's recipes, on every data set."""
    inference: Words = {}
    """Changes of the trained network's recipe, on every data set."""
    masks: str | None = None
    """Kind of mask; none: that of the table."""
    runs: dict[str, RunSettings] | None = None
    """Settings by data set, on top of the table's. none: every data set of the table; an empty
    mapping: a method that we do not carry."""
    note: str = ""
    """What a reader of the row must know."""


class Table(Strict):
    """A table of a paper."""

    title: str
    """What the table compares."""
    source: str
    """Paper, and number of the table."""
    data: str
    """The paper's data set, list of images and class source."""
    metric: str = "mIoU (%)"
    """What the numbers are."""
    note: str = ""
    """What a reader of the table must know."""
    columns: tuple[str, ...] = (MIOU,)
    """Columns of numbers. The first is compared with our mIoU, `hours` with our hours."""
    classes: tuple[str, ...] = ()
    """Names of the class-wise columns."""
    runs: dict[str, RunSettings] = {}
    """What the rows share, by data set."""
    rows: dict[str, Row]
    """Rows by the name that one types."""

    def settings(self, row_id: str, data: str) -> RunSettings | None:
        """Return what a row runs on a data set; None if it is not ours there."""
        row = self.rows[row_id]
        if row.runs is not None and data not in row.runs:
            return None
        shared = self.runs.get(data, RunSettings())
        own = (row.runs or {}).get(data, RunSettings())
        values: dict[str, Any] = {name: getattr(own, name) for name in own.model_fields_set}
        if row.masks is not None:
            values.setdefault("masks", row.masks)
        values["set"] = {**shared.set, **row.set, **own.set}
        values["inference"] = {**shared.inference, **row.inference, **own.inference}
        merged = shared.model_copy(update=values)
        return merged if merged.recipe is not None else None

    def data_sets(self) -> list[str]:
        """Return the data sets on which some row runs, in the order of the file."""
        named = dict.fromkeys(
            [*self.runs, *(data for row in self.rows.values() for data in row.runs or ())]
        )
        return [name for name in named if any(self.settings(row, name) for row in self.rows)]

    def row_name(self, row_id: str) -> str:
        """Return what the paper calls a row."""
        return self.rows[row_id].name or row_id

    def select_rows(self, names: list[str] | None) -> list[str]:
        """Return the rows of these names, in the order of the table; all rows without names.

        Raises:
            RecipeError: If the table has no such row, with the nearest name.
        """
        for name in names or ():
            if name not in self.rows:
                hint, known = did_you_mean(name, self.rows), ", ".join(self.rows)
                raise RecipeError(f"--rows: unknown row '{name}'.{hint} Known: {known}")
        return [name for name in self.rows if not names or name in names]


def available_tables() -> list[str]:
    """Return the names of the bundled tables, such as `rml_1`."""
    return sorted(path.stem for path in TABLE_FOLDER.glob("*.yaml"))


def table_path(name: str) -> Path:
    """Find a table by file path or by the name of a bundled table.

    Raises:
        RecipeError: If no bundled table has the name, with the nearest name.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    known = available_tables()
    if name not in known:
        raise RecipeError(
            f"unknown table '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}"
        )
    return TABLE_FOLDER / f"{name}.yaml"


def load_table(name: str) -> Table:
    """Load and check a table by file path or bundled name.

    Raises:
        RecipeError: If it cannot be read or contradicts itself; one line per problem.
    """
    path = table_path(name)
    try:
        table = Table.model_validate(read_yaml(path))
    except ValidationError as error:
        raise RecipeError(*validation_errors(error, Table, str(path), "")) from error
    if problems := [f"{path}: {problem}" for problem in _problems(table)]:
        raise RecipeError(*problems)
    return table


def _problems(table: Table) -> Iterator[str]:
    """Yield what contradicts itself, one line per problem."""
    for row_id, row in table.rows.items():
        where = f"rows.{row_id}"
        for column in row.paper:
            if column not in table.columns:
                yield f"{where}.paper: '{column}' is none of the columns {', '.join(table.columns)}"
        if row.iou and len(row.iou) != len(table.classes):
            yield f"{where}.iou: has {len(row.iou)} numbers for {len(table.classes)} classes"
        for data in table.data_sets():
            settings = table.settings(row_id, data)
            if settings is None:
                continue
            if settings.masks not in KINDS:
                yield (
                    f"{where}: unknown masks '{settings.masks}'."
                    f"{did_you_mean(settings.masks, KINDS)} Known: {', '.join(KINDS)}"
                )
            if settings.split == settings.threshold_split:
                yield f"{where}: '{data}' chooses its threshold on the reported list; name another"
