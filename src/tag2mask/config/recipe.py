"""Recipes: YAML in, frozen checked models out. The one schema of every setting.

A recipe names its plug-ins (`method: {name: rml}`); each plug-in's own `Config` checks its section,
so a new plug-in brings its keys with it. Every fault becomes one line, with a hint for a mistyped
key. Everybody takes the sections from here; they are written out in `settings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, SerializeAsAny, ValidationError, create_model

from tag2mask import plugins
from tag2mask.config.messages import validation_errors
from tag2mask.config.schema import (
    BackboneConfig,
    Config,
    DataConfig,
    MethodConfig,
    OptimConfig,
    PredictConfig,
    RefinerConfig,
    RunConfig,
)
from tag2mask.config.stages import StageConfig, overlay_stage, stage_problems
from tag2mask.errors import RecipeError, did_you_mean

RECIPE_FOLDER = Path(__file__).parents[1] / "recipes"
SCHEMA_VERSION: Literal[1] = 1
PLUGIN_SECTIONS = {
    "data": "data",
    "backbone": "models.backbones",
    "method": "methods",
    "refiner": "refiners",
}
"""Section of a recipe -> plug-in folder whose class checks it."""


class Recipe(Config):
    """One training stage, whole, or the stages of a pipeline and what they have in common.

    What `recipe.yaml` of a run holds. The last two sections are written by the pipeline into the
    recipes of its stages.
    """

    version: Literal[1] = SCHEMA_VERSION
    """Schema version."""
    data: SerializeAsAny[DataConfig]
    backbone: SerializeAsAny[BackboneConfig]
    method: SerializeAsAny[MethodConfig]
    refiner: SerializeAsAny[RefinerConfig] | None = None
    optim: OptimConfig = OptimConfig()
    predict: PredictConfig = PredictConfig()
    run: RunConfig = RunConfig()
    stages: dict[str, StageConfig] = Field(default_factory=dict)
    """Stages in order, each in a folder of its own; none: the recipe is one stage."""
    earlier: dict[str, SerializeAsAny[Recipe]] = Field(default_factory=dict)
    """Resolved recipes of the stages whose networks this one goes on from."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Fingerprints of what this stage was made from, by stage."""

    @property
    def num_foreground(self) -> int:
        """F, the number of classes without background."""
        return len(self.data.classes)

    def with_classes(self, classes: Sequence[str]) -> Recipe:
        """Return the recipe with its class list filled in from the data."""
        return self.model_copy(
            update={"data": self.data.model_copy(update={"classes": tuple(classes)})}
        )

    def resolved(self) -> Recipe:
        """Return the recipe whose network can be built without files; see `BackboneConfig`."""
        return self.model_copy(update={"backbone": self.backbone.resolved()})

    def blank(self) -> Recipe:
        """Return the recipe for a network that its own run's weights file will fill."""
        bare = self.backbone.model_copy(update={"weights": "none"})
        return self.model_copy(update={"backbone": bare})

    def plain(self) -> dict[str, Any]:
        """Return the recipe as plain values that `parse_recipe` reads back to an equal recipe."""
        values = self.model_dump(mode="json", exclude={"stages", "earlier", "inputs"})
        if self.stages:
            values["stages"] = {
                name: stage.model_dump(mode="json", by_alias=True, exclude_unset=True)
                for name, stage in self.stages.items()
            }
        if self.earlier:
            values["earlier"] = {name: recipe.plain() for name, recipe in self.earlier.items()}
        if self.inputs:
            values["inputs"] = dict(self.inputs)
        return values

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML that `load_recipe` reads back to an equal recipe."""
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True)


def recipe_type(raw: Mapping[str, Any], where: str = "recipe", prefix: str = "") -> type[Recipe]:
    """Build the Recipe model whose plug-in sections are checked by the named plug-ins' own Configs.

    Raises:
        RecipeError: If a section is missing, is no mapping or names no plug-in.
    """
    kinds: dict[str, type[Config]] = {}
    for section, folder in PLUGIN_SECTIONS.items():
        content = raw.get(section)
        if content is None and section == "refiner":
            continue
        if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
            known = ", ".join(plugins.available(folder))
            raise RecipeError(
                f"{where}: {prefix}{section}: needs a mapping with 'name' (one of {known})"
            )
        kinds[section] = plugins.load(folder, content["name"]).Config
    return _recipe_type(tuple(kinds.items()))


@cache  # a model takes 20 ms to build, and every stage asks for several
def _recipe_type(kinds: tuple[tuple[str, type[Config]], ...]) -> type[Recipe]:
    fields: dict[str, Any] = {section: (kind, ...) for section, kind in kinds}
    return create_model("Recipe", __base__=Recipe, **fields)


def parse_recipe(raw: object, where: str, prefix: str = "") -> Recipe:
    """Check a raw mapping against the schema, with all its stages.

    Args:
        raw: What a YAML file holds.
        where: Names the recipe in messages.
        prefix: Stands before the keys in messages, such as `stages.seg.`.

    Raises:
        RecipeError: One line per fault: where, key, what is wrong, and a hint.
    """
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{where}: a recipe is a mapping of sections, got {type(raw).__name__}")
    kind = recipe_type(raw, where, prefix)
    values = dict(raw)
    if isinstance(raw.get("earlier"), Mapping):  # each is checked by its own plug-ins
        values["earlier"] = {
            name: parse_recipe(part, where, f"{prefix}earlier.{name}.")
            for name, part in raw["earlier"].items()
        }
    try:
        recipe = kind.model_validate(values)
    except ValidationError as error:
        lines = validation_errors(error, kind, where, prefix)
        raise RecipeError("\n".join(lines)) from error
    _check_stages(recipe, where)
    return recipe


def stage_recipe(recipe: Recipe, name: str, where: str = "recipe") -> Recipe:
    """Turn one stage of a multi-stage recipe into a recipe of its own.

    A train stage changes the recipe's sections; a stage that labels or evaluates those of the stage
    in its `from`. What earlier stages leave is still to be filled in.

    Args:
        recipe: Has stages.
        name: One of them.
        where: Names the recipe in messages.

    Raises:
        RecipeError: One line per fault.
    """
    stage = recipe.stages[name]
    base = recipe if stage.run == "train" else stage_recipe(recipe, stage.from_[0], where)
    values = base.plain()
    values.pop("stages", None)
    return parse_recipe(overlay_stage(values, stage), where, f"stages.{name}.")


def read_yaml(path: Path) -> object:
    """Read one YAML file.

    Raises:
        RecipeError: If the file is missing or is no YAML, with the line of the fault.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", error)
        raise RecipeError(f"{path}:{line} is no readable YAML ({problem})") from error


def available_recipes() -> list[str]:
    """Names of the recipes that come with the package, such as `rml/synthetic_tiny`."""
    return sorted(
        path.relative_to(RECIPE_FOLDER).with_suffix("").as_posix()
        for path in RECIPE_FOLDER.rglob("*.yaml")
    )


def recipe_path(name: str) -> Path:
    """Find a recipe by file path or by the name of one that comes with the package.

    Raises:
        RecipeError: If there is neither, with the nearest name.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    bundled = RECIPE_FOLDER / f"{name}.yaml"
    if bundled.is_file():
        return bundled
    known = available_recipes()
    raise RecipeError(
        f"unknown recipe '{name}'.{did_you_mean(name, known)} "
        "'tag2mask list recipes' shows all; your own recipe ends in .yaml"
    )


def load_recipe(name: str) -> Recipe:
    """Load and check a recipe by file path or bundled name."""
    path = recipe_path(name)
    return parse_recipe(read_yaml(path), str(path))


def _check_stages(recipe: Recipe, where: str) -> None:
    """Raise a RecipeError for stages that contradict each other or cannot be resolved."""
    problems = [f"{where}: {problem}" for problem in stage_problems(recipe.stages)]
    for name in () if problems else recipe.stages:
        try:
            stage_recipe(recipe, name, where)
        except RecipeError as error:
            problems += str(error).splitlines()
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(problems)))  # a stage's faults also reach others
