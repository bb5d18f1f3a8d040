"""Find what a line of `train` or `init` names: a folder of images, or a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tag2mask.cli.check import is_run
from tag2mask.errors import RecipeError, did_you_mean

if TYPE_CHECKING:  # pydantic, which --help need not import
    from tag2mask.config.overrides import Overrides
    from tag2mask.config.recipe import Recipe
    from tag2mask.fitting.recipe import FittedRecipe

DATA_HELP = (
    "Folder of tagged images: COCO format, VOC layout, tags.csv, tags.jsonl or a folder per class."
)


def is_folder(word: str) -> bool:
    """Return whether a word of the line names a folder of images; otherwise it names a recipe.

    Raises:
        RecipeError: If it may mean both, means neither, or is the folder of a run.
    """
    from tag2mask.config.recipe import available_recipes

    path = Path(word)
    if path.is_dir():
        if word in available_recipes():
            raise RecipeError(
                f"'{word}' is a folder and a recipe: write ./{word} for the folder, or --recipe "
                f"{word} for the recipe"
            )
        if is_run(path):
            raise RecipeError(
                f"'{word}' is a run, not a folder of images: --resume {word} resumes it, and "
                f"'train DATA --from {word}' starts from its weights"
            )
        return True
    if path.suffix in (".yaml", ".yml") or word in available_recipes():
        return False
    if path.is_file():
        raise RecipeError(
            f"'{word}' is a file: give a folder of images (unpack an archive first), or a recipe "
            "whose name ends in .yaml"
        )
    hint = did_you_mean(word, [*available_recipes(), *_beside(path)])
    raise RecipeError(
        f"'{word}' is neither a folder nor a recipe.{hint} 'tag2mask list recipes' shows all "
        "recipes; the name of your own ends in .yaml"
    )


def _beside(path: Path) -> list[str]:
    """Return the folders and YAML files beside a path that does not exist."""
    return [
        str(path.with_name(other.name))
        for other in (path.parent.iterdir() if path.parent.is_dir() else ())
        if other.is_dir() or other.suffix in (".yaml", ".yml")
    ]


def fit_folder(
    data: str, recipe: str | None, start: str | None, minutes: float | None
) -> FittedRecipe:
    """Fit a recipe to a folder and this machine."""
    from tag2mask.fitting.recipe import fit_recipe

    return fit_recipe(Path(data), recipe, start=start, minutes=minutes)


def read_recipe(name: str, start: str | None, overrides: Overrides) -> Recipe:
    """Read a recipe with the keys of the line.

    Args:
        name: Of a bundled recipe, or a YAML file.
        start: Run whose weights training starts from.
        overrides: Keys of the line.
    """
    from tag2mask.config.overrides import apply_overrides
    from tag2mask.config.recipe import recipe_path
    from tag2mask.io.yaml_files import read_yaml

    raw = read_yaml(recipe_path(name))
    if start is not None and isinstance(raw, Mapping):
        raw = {**raw, "run": {**(raw.get("run") or {}), "weights_from": start}}
    return apply_overrides(raw, overrides, name)
