"""Keep a schedule in proportion when a recipe trains for another number of steps.

A recipe may state a point in training as a number of steps, such as `method.warmup=2000`. If only
`optim.steps` changes to 600, that point is never reached and the method's losses never start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from tag2mask.config.overrides import Overrides
from tag2mask.config.recipe import Recipe, stage_recipe
from tag2mask.config.schema import PointInTraining, resolve_steps
from tag2mask.errors import RecipeError

COUNTED_KEYS = ("decay_steps",)
"""Keys of the section `optim` that count steps and scale like a point in training."""


def scale_schedule(before: Recipe, after: Recipe, fixed: Overrides) -> dict[str, str]:
    """Return the overrides that move points in training in proportion to a changed length.

    Args:
        before: Recipe with the schedule as its author wrote it.
        after: The same recipe with other steps.
        fixed: Overrides that were made on purpose; their keys do not scale.

    Returns:
        Numbers of steps by dotted key; empty if no length changed.

    Example:
        >>> from tag2mask.config.overrides import apply_overrides
        >>> from tag2mask.config.recipe import load_recipe
        >>> before = load_recipe("onestage/voc_resnet38d")
        >>> short = {"optim.steps": "600"}
        >>> after = apply_overrides(before.plain(), short, "onestage/voc_resnet38d")
        >>> scale_schedule(before, after, short)
        {'method.mask_from': '125'}
    """
    scaled: dict[str, str] = {}
    for prefix, old, new in _training_recipes(before, after):
        factor = new.optim.steps / old.optim.steps
        if factor == 1:
            continue
        for section, points in (("method", _points(new.method)), ("optim", _points(new.optim))):
            for key, steps in points.items():
                names = {f"{prefix}{section}.{key}", f"{section}.{key}"}
                if not names & fixed.keys():
                    scaled[f"{prefix}{section}.{key}"] = str(max(1, round(steps * factor)))
    return scaled


def scale_stage_steps(recipe: Recipe, steps: int, fixed: Overrides) -> dict[str, str]:
    """Return the overrides that keep the lengths of stages in proportion to `optim.steps`.

    Args:
        recipe: Recipe with the lengths as its author wrote them.
        steps: New value of `optim.steps`, from which stages with a length of their own depart.
        fixed: Overrides that were made on purpose; their keys do not scale.

    Returns:
        Numbers of steps by dotted key; empty for a recipe without such stages.
    """
    factor = steps / recipe.optim.steps
    own = {
        f"stages.{name}.optim.steps": stage.optim["steps"]
        for name, stage in recipe.stages.items()
        if stage.run == "train" and "steps" in stage.optim
    }
    return {
        key: str(max(1, round(int(length) * factor)))
        for key, length in own.items()
        if key not in fixed
    }


def reject_losses_that_never_start(recipe: Recipe, where: str) -> None:
    """Reject a recipe in which a point of its method lies behind the end of the training.

    Args:
        recipe: To be trained.
        where: Names the recipe in the message.

    Raises:
        RecipeError: One line per point.
    """
    problems = [
        f"{where}: {prefix}method.{key}={steps:g} is not before the end, optim.steps="
        f"{stage.optim.steps}, so these losses never start; set it to a fraction of all steps"
        for prefix, _, stage in _training_recipes(recipe, recipe)
        for key, steps in _points(stage.method).items()
        if resolve_steps(steps, stage.optim.steps) >= stage.optim.steps
    ]
    if problems:
        raise RecipeError(*problems)


def _training_recipes(before: Recipe, after: Recipe) -> Iterator[tuple[str, Recipe, Recipe]]:
    """Yield the key prefix and both recipes of each stage that trains, or of the only one."""
    if not after.stages:
        yield "", before, after
        return
    for name, stage in after.stages.items():
        if stage.run == "train":
            yield f"stages.{name}.", stage_recipe(before, name), stage_recipe(after, name)


def _points(section: BaseModel) -> Mapping[str, float]:
    """Return the keys of a section that state a point in training as a number of steps."""
    names = [
        name
        for name, field in type(section).model_fields.items()
        if name in COUNTED_KEYS or any(isinstance(one, PointInTraining) for one in field.metadata)
    ]
    values = {name: getattr(section, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and value >= 1}
