"""List methods, recipes, refiners, backbones, formats, or the keys of a recipe."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tag2mask.cli.summary import plugin_summaries, recipe_summary
from tag2mask.errors import RecipeError

if TYPE_CHECKING:  # pydantic, which --help need not import
    from tag2mask.config.overrides import Overrides

FOLDERS = {
    "methods": "methods",
    "refiners": "refiners",
    "backbones": "models.backbones",
    "formats": "formats",
}
"""Word of the command -> plug-in folder."""
KEY_SECTIONS = ("data", "backbone", "method", "refiner", "optim", "predict", "run", "stages")
EXAMPLES = """\
  tag2mask list recipes
  tag2mask list keys rml/voc_mitb1
  tag2mask list keys rml/voc_mitb1 method=cam
  tag2mask list keys my_recipe.yaml | grep predict"""


def run(
    ctx: typer.Context,
    what: Annotated[
        Literal["methods", "recipes", "refiners", "backbones", "formats", "keys"],
        typer.Argument(metavar="WHAT", help="What to list."),
    ],
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Recipe whose keys to list: the name of a bundled recipe, or a YAML file.",
        ),
    ] = None,
) -> None:
    """List methods, recipes, refiners, backbones, formats, or the keys of a recipe.

    WHAT is one of methods, recipes, refiners, backbones, formats, keys. `keys RECIPE` shows each
    key with the value that the recipe sets, its type and range, and its meaning; keys on the line
    change the recipe first.
    """
    if what == "keys":
        if recipe is None:
            raise RecipeError(
                "missing: RECIPE ('tag2mask list recipes' shows all; see: tag2mask list --help)"
            )
        print_keys(recipe, ctx.obj.overrides)
        return
    if recipe is not None or ctx.obj.overrides:
        word = recipe if recipe is not None else next(iter(ctx.obj.overrides))
        raise RecipeError(f"unexpected word '{word}': only 'list keys' takes a recipe")
    rows = _recipes() if what == "recipes" else plugin_summaries(FOLDERS[what])
    if what == "formats":
        rows |= plugin_summaries("formats.models")
    width = max(map(len, rows), default=0) + 2
    for name, summary in rows.items():
        print(f"{name:<{width}}{summary}".rstrip())


def print_keys(name: str, overrides: Overrides) -> None:
    """Print the keys of a recipe by section; long help texts wrap where the terminal ends."""
    from tag2mask.config.listing import list_sections
    from tag2mask.config.overrides import apply_overrides
    from tag2mask.config.recipe import recipe_path
    from tag2mask.io.yaml_files import read_yaml

    recipe = apply_overrides(read_yaml(recipe_path(name)), overrides, name)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    for section, keys in list_sections(recipe):
        print(f"\n{section}")
        for key in keys:
            print(f"  {key!s:<38}  {key.type}".rstrip())
            for line in textwrap.wrap(key.help, max(width - 6, 40)):
                print(f"      {line}")


def _recipes() -> dict[str, str]:
    """Map recipe names to title and expected result."""
    from tag2mask.config.recipe import RECIPE_FOLDER, available_recipes

    rows = {}
    for name in available_recipes():
        title, expected = recipe_summary(RECIPE_FOLDER / f"{name}.yaml")
        rows[name] = f"{title}  Expect: {expected or 'not stated'}"
    return rows
