"""The file `tune.json` of a run: settings that were chosen after training, and why.

The recipe of a run stays as it was trained, so that the run can resume and its record stays true.
Inference reads the chosen values on top of it; without the file, the trained values apply again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.errors import RunError
from tag2mask.io.files import write_text
from tag2mask.io.json_files import FileSchema, read_object

TUNE_FILE = "tune.json"
Changes = Mapping[str, Mapping[str, Any]]
"""Section -> new values: some keys of `predict`, or a complete `refiner`."""
_ADVICE = "remove it to return to the trained values, then run tag2mask tune"


class _Changes(FileSchema):
    """See `Changes`."""

    predict: dict[str, Any] = Field(default={})
    refiner: dict[str, Any] | None = None


class _TuneFile(FileSchema):
    """The file."""

    chosen: _Changes
    trained: _Changes


def apply_tuned(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe of a run with the settings that were chosen for it, if there are any.

    Args:
        recipe: As it was trained.
        folder: Run folder, of a run with stages that of the trained stage.

    Raises:
        RunError: If `tune.json` is damaged.
        RecipeError: If its values do not fit the recipe.
    """
    return with_changes(recipe, _read(folder, "chosen"), str(folder / TUNE_FILE))


def undo_tuned(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe as it was trained, given what `apply_tuned` returned."""
    return with_changes(recipe, _read(folder, "trained"), str(folder / TUNE_FILE))


def _read(folder: Path, part: str) -> Changes:
    """Read one part of `tune.json`; no changes without the file.

    Raises:
        RunError: If the file is damaged.
    """
    path = folder / TUNE_FILE
    if not path.exists():
        return {}
    changes: Changes = read_object(path, _TuneFile, RunError, advice=_ADVICE)[part]
    return changes


def with_changes(recipe: Recipe, changes: Changes, where: str) -> Recipe:
    """Return a recipe with changed settings of inference.

    Raises:
        RecipeError: If a value does not fit; `where` names its origin.
    """
    if not changes:
        return recipe
    plain = recipe.plain()
    plain["predict"] = {**plain["predict"], **changes.get("predict", {})}
    if "refiner" in changes:
        plain["refiner"] = changes["refiner"]
    return parse_recipe(plain, where)


def write_tuned(folder: Path, trained: Recipe, chosen: Changes, record: Mapping[str, Any]) -> None:
    """Write `tune.json`, completely or not at all.

    Args:
        folder: See `apply_tuned`.
        trained: Recipe of the run as it was trained; its values of the changed keys are kept.
        chosen: Settings to use from now on; may be empty.
        record: What the choice rests on, as plain values.

    Raises:
        RunError: If the file cannot be written.
    """
    plain = trained.plain()
    before: dict[str, Any] = {
        "predict": {key: plain["predict"][key] for key in chosen.get("predict", {})}
    }
    if "refiner" in chosen:
        before["refiner"] = plain["refiner"]
    values = {"chosen": chosen, "trained": before, "record": record}
    write_text(folder / TUNE_FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
