"""Read recipes: YAML in, frozen and checked models out.

A recipe names its plug-ins (`method: {name: rml}`). Each plug-in's own `Config` checks its section,
so a new plug-in brings its keys with it. Every problem becomes one line, with a hint for a mistyped
key.
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
from tag2mask.config.stages import StageConfig, apply_stage, stage_problems
from tag2mask.errors import RecipeError, did_you_mean
from tag2mask.io.yaml_files import read_yaml

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
    """All settings of one training stage, or the stages of a pipeline and their shared settings.

    A run keeps it as `recipe.yaml`. The pipeline writes the last two sections into the recipes of
    its stages.
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
    """Stages in order, each in its own folder; empty: the recipe is a single stage."""
    earlier: dict[str, SerializeAsAny[Recipe]] = Field(default_factory=dict)
    """Resolved recipes of the earlier stages whose networks this stage starts from."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Fingerprints of the outputs that this stage used, by the name of the stage that made them."""

    @property
    def num_foreground(self) -> int:
        """F, the number of classes without background."""
        return len(self.data.classes)

    def with_classes(self, classes: Sequence[str]) -> Recipe:
        """Return the recipe with this class list."""
        return self.model_copy(
            update={"data": self.data.model_copy(update={"classes": tuple(classes)})}
        )

    def resolved(self) -> Recipe:
        """Return the recipe whose network needs no files to be built; see `BackboneConfig`."""
        return self.model_copy(update={"backbone": self.backbone.resolved()})

    def blank(self) -> Recipe:
        """Return the recipe of a network without pretrained weights, to be filled by a run."""
        backbone = self.backbone.model_copy(update={"weights": "none"})
        return self.model_copy(update={"backbone": backbone})

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

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle plain values: the class of a recipe depends on its plug-ins and is built anew."""
        return parse_recipe, (self.plain(), "recipe")

    def to_yaml(self) -> str:
        """Return the recipe as YAML that `load_recipe` reads back to an equal recipe."""
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True)


def recipe_type(raw: Mapping[str, Any], where: str = "recipe", prefix: str = "") -> type[Recipe]:
    """Build the model of a recipe, in which the `Config` of each named plug-in checks its section.

    Args:
        raw: Content of a YAML file.
        where: Names the recipe in messages.
        prefix: Put before the keys in messages, such as `stages.seg.`.

    Raises:
        RecipeError: If a section is missing, is not a mapping or names no plug-in.
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


@cache  # a model takes 20 ms to build, and every stage needs several
def _recipe_type(kinds: tuple[tuple[str, type[Config]], ...]) -> type[Recipe]:
    fields: dict[str, Any] = {section: (kind, ...) for section, kind in kinds}
    return create_model("Recipe", __base__=Recipe, **fields)


def parse_recipe(raw: object, where: str, prefix: str = "") -> Recipe:
    """Check a raw recipe and all its stages against the schema.

    Args:
        raw: Content of a YAML file.
        where: Names the recipe in messages.
        prefix: Put before the keys in messages, such as `stages.seg.`.

    Raises:
        RecipeError: One line per problem: where, key, what is wrong, and a hint.
    """
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{where}: a recipe is a mapping of sections, got {type(raw).__name__}")
    kind = recipe_type(raw, where, prefix)
    values = dict(raw)
    if isinstance(raw.get("earlier"), Mapping):  # each has plug-ins of its own
        values["earlier"] = {
            name: parse_recipe(part, where, f"{prefix}earlier.{name}.")
            for name, part in raw["earlier"].items()
        }
    try:
        recipe = kind.model_validate(values)
    except ValidationError as error:
        lines = validation_errors(error, kind, where, prefix)
        raise RecipeError(*lines) from error
    _check_stages(recipe, where)
    return recipe


def stage_recipe(recipe: Recipe, name: str, where: str = "recipe") -> Recipe:
    """Turn one stage of a multi-stage recipe into a recipe of its own.

    A train stage changes the recipe's sections; a label or evaluate stage changes those of the
    stage in its `from`. The pipeline fills in the outputs of earlier stages afterwards.

    Args:
        recipe: A recipe with stages.
        name: Name of the stage.
        where: Names the recipe in messages.

    Raises:
        RecipeError: One line per problem.
    """
    stage = recipe.stages[name]
    base = recipe if stage.run == "train" else stage_recipe(recipe, stage.from_[0], where)
    values = base.plain()
    values.pop("stages", None)
    return parse_recipe(apply_stage(values, stage, type(base)), where, f"stages.{name}.")


def available_recipes() -> list[str]:
    """Return the names of the bundled recipes, such as `rml/synthetic_tiny`."""
    return sorted(
        path.relative_to(RECIPE_FOLDER).with_suffix("").as_posix()
        for path in RECIPE_FOLDER.rglob("*.yaml")
    )


def recipe_path(name: str) -> Path:
    """Find a recipe by file path or by the name of a bundled recipe.

    Raises:
        RecipeError: If no bundled recipe has the name, with the nearest name.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    bundled = RECIPE_FOLDER / f"{name}.yaml"
    if bundled.is_file():
        return bundled
    known = [*available_recipes(), *(str(file) for file in path.parent.glob("*.y*ml"))]
    raise RecipeError(
        f"unknown recipe '{name}'.{did_you_mean(name, known)} "
        "'tag2mask list recipes' shows all; the name of your own recipe ends in .yaml"
    )


def load_recipe(name: str) -> Recipe:
    """Load and check a recipe by file path or bundled name."""
    path = recipe_path(name)
    return parse_recipe(read_yaml(path), str(path))


def _check_stages(recipe: Recipe, where: str) -> None:
    """Raise a RecipeError if stages contradict each other or one is no valid recipe."""
    problems = [f"{where}: {problem}" for problem in stage_problems(recipe.stages)]
    for name in () if problems else recipe.stages:
        try:
            stage_recipe(recipe, name, where)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(*dict.fromkeys(problems))  # stages that use a faulty one repeat its lines
