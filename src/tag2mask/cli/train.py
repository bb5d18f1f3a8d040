"""Train a recipe on tagged photos; every key of the recipe can be set on the command line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tyro
from pydantic import create_model

from tag2mask.cli.overrides import apply_overrides, split_overrides, suggest_option
from tag2mask.cli.parsing import parse
from tag2mask.errors import RecipeError, Tag2MaskError
from tag2mask.recipe import Config, Recipe, read_yaml, recipe_path, recipe_type

MORE_HELP = (
    "Any key of the recipe is an option after it: --data.root DIR, --optim.lr 1e-4, "
    "--predict.scales 1.0 0.5, "
    "--predict.flip false, --method.name cam, --refiner none. "
    "'tag2mask train RECIPE --help' lists them all; 'tag2mask list recipes' shows the recipes."
)


@dataclass(frozen=True)
class Train:
    """Train a recipe on tagged photos."""

    recipe: tyro.conf.Positional[str] = ""
    """Name of a recipe that comes with the package (rml/scenes_tiny), or a YAML file; with --resume
    it may be left out."""
    out: Path | None = None
    """Run folder to make."""
    resume: Path | None = None
    """Run folder to go on from, exactly where it stopped; takes the place of --out."""


def run(arguments: Sequence[str]) -> None:
    """Resolve the recipe and hand it to the trainer."""
    plain, overrides = split_overrides(arguments)
    named = plain[0] if plain and not plain[0].startswith("-") else ""
    if named and any(word in ("-h", "--help") for word in plain):
        show_keys(named, overrides)
        return
    raw = read_yaml(recipe_path(named)) if named else None
    _refuse_unknown(plain, raw, named)
    chosen = parse(Train, plain, "train", more_help=MORE_HELP)
    folder = _run_folder(chosen)
    where = named or str(folder / "recipe.yaml")
    recipe = apply_overrides(raw if named else read_yaml(folder / "recipe.yaml"), overrides, where)

    from tag2mask.engine.trainer import train

    command = shlex.join(["tag2mask", "train", *arguments])
    train(recipe, folder, resume=chosen.resume is not None, command=command)
    if os.environ.get("RANK", "0") == "0":  # torchrun's other processes say nothing
        print(f"trained: {folder}\nnext:    tag2mask label {folder} DATA --out MASKS")


def _run_folder(chosen: Train) -> Path:
    """Return the run folder; refuse what is left out or contradicts."""
    if not chosen.recipe and chosen.resume is None:
        raise Tag2MaskError(
            "missing: RECIPE ('tag2mask list recipes' shows all; see: tag2mask train --help)"
        )
    if chosen.out is None and chosen.resume is None:
        raise Tag2MaskError(
            "missing: --out RUN, the run folder to make (see: tag2mask train --help)"
        )
    if chosen.resume is not None and chosen.out not in (None, chosen.resume):
        raise Tag2MaskError(
            f"--out {chosen.out} and --resume {chosen.resume} name two run folders; leave out --out"
        )
    return chosen.resume or chosen.out or Path()


def show_keys(name: str, overrides: dict[str, list[str]]) -> None:
    """Print help with every key of one recipe: what it means, may be, and what the recipe sets."""
    recipe = apply_overrides(read_yaml(recipe_path(name)), overrides, name)
    sections: dict[str, Any] = {
        section: (type(value), value) for section, value in recipe if isinstance(value, Config)
    }
    keys = create_model("Keys", __base__=Config, **sections)
    tyro.cli(
        keys,
        prog=f"tag2mask train {name} --out RUN",
        description=f"Keys of the recipe {name}; defaults are what it sets. {MORE_HELP}",
        args=["--help"],
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff,),
    )


def _refuse_unknown(plain: Sequence[str], raw: object, where: str) -> None:
    """Raise a RecipeError for an option that is neither the command's nor dotted, with a hint."""
    own = ["help", *(field.name for field in fields(Train) if field.name != "recipe")]
    for word in plain:
        if word.startswith("--") and word[2:].partition("=")[0] not in own:
            kind = recipe_type(raw, where) if isinstance(raw, Mapping) else Recipe
            raise RecipeError(suggest_option(word, kind, own))
