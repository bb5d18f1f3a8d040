"""List what can be named: methods, recipes, refiners, backbones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from tag2mask.cli.parsing import parse
from tag2mask.cli.summary import plugin_summaries, recipe_summary
from tag2mask.config.recipe import RECIPE_FOLDER, available_recipes

FOLDERS = {"methods": "methods", "refiners": "refiners", "backbones": "models.backbones"}
"""What one types -> plug-in folder."""


@dataclass(frozen=True)
class List:
    """List what can be named in recipes and on the command line."""

    what: tyro.conf.Positional[Literal["methods", "recipes", "refiners", "backbones"]]
    """What to list."""


def run(arguments: Sequence[str]) -> None:
    """Print one name with its summary per line."""
    what = parse(List, arguments, "list").what
    rows = _recipes() if what == "recipes" else plugin_summaries(FOLDERS[what])
    width = max(map(len, rows), default=0) + 2
    for name, summary in rows.items():
        print(f"{name:<{width}}{summary}".rstrip())


def _recipes() -> dict[str, str]:
    """Map recipe names to title and expectation."""
    rows = {}
    for name in available_recipes():
        title, expected = recipe_summary(RECIPE_FOLDER / f"{name}.yaml")
        rows[name] = f"{title}  Expect: {expected or 'not said'}"
    return rows
