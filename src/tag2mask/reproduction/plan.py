"""Plan the runs of a table: which recipe a row trains, in which folder, and what is scored."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tag2mask.config.overrides import Overrides, apply_overrides
from tag2mask.config.recipe import Recipe, recipe_path, stage_recipe
from tag2mask.errors import RecipeError, did_you_mean
from tag2mask.io.yaml_files import read_yaml
from tag2mask.reproduction.schedule import (
    reject_losses_that_never_start,
    scale_schedule,
    scale_stage_steps,
)
from tag2mask.reproduction.table import RunSettings, Table

RUN_DEFAULTS = {"run.evaluate_every": "0", "run.evaluate_images": "1", "run.samples": "0"}
"""The runs score their last weights afterwards, so evaluations during training only take time."""
STEPS = "optim.steps"
PATHS_AND_INTERVALS = {
    "data": ("root", "labels"),
    "run": ("workers", "log_every", "save_every", "samples", "evaluate_every", "evaluate_images"),
}
"""Keys that may differ between runs of one network; they are not part of its folder's name."""


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """One row with one random seed: what to train and what to score."""

    row_id: str
    seed: int
    settings: RunSettings
    recipe: Recipe
    overrides: Mapping[str, str]
    """Changes of the recipe's file that give `recipe`, as typed on a command line."""
    stage: str | None
    """Stage whose network is scored; None for a recipe without stages."""

    @property
    def run_name(self) -> str:
        """Folder of the run; rows that train the same network share it."""
        name = re.sub(r"\W+", "-", self.settings.recipe or "").strip("-")
        recipes = {stage: stage_recipe(self.recipe, stage) for stage in self.recipe.stages}
        networks = recipes or {"": self.recipe}
        digest = _digest({stage: _without_paths(recipe) for stage, recipe in networks.items()})
        return f"{name}-{digest}-seed{self.seed}"

    def scores_name(self, limit: int | None) -> str:
        """Name of the file of scores; it changes with everything that the scores depend on."""
        settings = self.settings.model_dump(mode="json", exclude={"set"})
        made_from = {"run": self.run_name, "stage": self.stage, "limit": limit, **settings}
        return f"{self.row_id}-{_digest(made_from)}-seed{self.seed}.json"

    def train_command(self, run: Path) -> str:
        """Return the command that trains the same run."""
        words = [f"{key}={value}" for key, value in self.overrides.items()]
        line = ["tag2mask", "train", str(self.settings.recipe), *words, "--out", str(run)]
        return shlex.join(line)

    @property
    def stages(self) -> list[str]:
        """The stage that is scored and all stages that it needs, in order; empty without stages."""
        if self.stage is None:
            return []
        needed = {self.stage}
        for name in reversed(self.recipe.stages):
            if name in needed:
                needed.update(self.recipe.stages[name].needs)
        return [name for name in self.recipe.stages if name in needed]

    def inference_recipe(self, trained: Recipe) -> Recipe:
        """Return the recipe of a trained network with the changes of inference."""
        return apply_overrides(trained.plain(), self.settings.inference, f"row '{self.row_id}'")


def plan_rows(
    table: Table, data: str, row_ids: Sequence[str], seeds: Sequence[int], overrides: Overrides
) -> list[PlannedRow]:
    """Plan the rows that are ours, one seed after another, so that early results cover every row.

    Args:
        table: Table of a paper.
        data: Data set, one of those that the table names.
        row_ids: Rows to run.
        seeds: Random seeds.
        overrides: Changes of every recipe; a row's own changes win.

    Raises:
        RecipeError: If no row runs on this data set, or a recipe cannot be used.
    """
    known = table.data_sets()
    if data not in known:
        hint = did_you_mean(data, known)
        raise RecipeError(
            f"--data {data}: no row of this table runs on it.{hint} "
            f"Known: {', '.join(known) or 'none'}"
        )
    settings = {row_id: table.settings(row_id, data) for row_id in row_ids}
    return [
        plan_row(row_id, own, seed, overrides, table.rows[row_id].set)
        for seed in seeds
        for row_id, own in settings.items()
        if own is not None
    ]


def plan_row(
    row_id: str, settings: RunSettings, seed: int, overrides: Overrides, own: Overrides
) -> PlannedRow:
    """Plan one row with one seed.

    Args:
        row_id: Key of the row.
        settings: What it runs; has a recipe.
        seed: Random seed.
        overrides: The user's changes.
        own: The row's own changes, which the user's do not replace.

    Raises:
        RecipeError: If the recipe or its changes cannot be used; nothing has been trained.
    """
    name = settings.recipe or ""
    raw = read_yaml(recipe_path(name))
    chosen = {**RUN_DEFAULTS, **settings.set, **overrides, **own, "run.seed": str(seed)}
    if STEPS in overrides:
        written = apply_overrides(raw, {**settings.set, **own}, name)
        steps = apply_overrides(raw, chosen, name).optim.steps
        chosen |= scale_stage_steps(written, steps, overrides)
    recipe = apply_overrides(raw, chosen, name)
    published = {key: text for key, text in chosen.items() if not key.endswith(STEPS)}
    chosen |= scale_schedule(apply_overrides(raw, published, name), recipe, chosen)
    recipe = apply_overrides(raw, chosen, name)
    reject_losses_that_never_start(recipe, f"row '{row_id}'")
    plan = PlannedRow(row_id, seed, settings, recipe, chosen, _scored_stage(recipe, settings, name))
    plan.inference_recipe(recipe if plan.stage is None else stage_recipe(recipe, plan.stage))
    return plan


def _scored_stage(recipe: Recipe, settings: RunSettings, name: str) -> str | None:
    """Return the stage whose network is scored; None for a recipe without stages."""
    trained = [stage for stage, config in recipe.stages.items() if config.run == "train"]
    if settings.stage is None:
        return trained[-1] if trained else None
    if settings.stage not in trained:
        hint = did_you_mean(settings.stage, trained)
        raise RecipeError(
            f"{name}: no stage '{settings.stage}' trains.{hint} Known: {', '.join(trained)}"
        )
    return settings.stage


def _without_paths(recipe: Recipe) -> dict[str, Any]:
    """Return the plain values of a recipe without those that do not change its network."""
    values = recipe.plain()
    for section, names in PATHS_AND_INTERVALS.items():
        values[section] = {key: value for key, value in values[section].items() if key not in names}
    return values


def _digest(values: Mapping[str, Any]) -> str:
    """Return eight hexadecimal digits that identify plain values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
