"""Train a recipe on tagged images; every key of the recipe can be set on the command line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tyro
from pydantic import create_model

from tag2mask.cli.parsing import parse
from tag2mask.config.overrides import apply_overrides, split_overrides, suggest_option
from tag2mask.config.recipe import Recipe, read_yaml, recipe_path, recipe_type
from tag2mask.config.schema import Config
from tag2mask.errors import RecipeError, Tag2MaskError

MORE_HELP = (
    "Any key of the recipe is an option after it: --data.root DIR, --optim.lr 1e-4, "
    "--predict.scales 1.0 0.5, "
    "--predict.flip false, --method.name cam, --refiner none; of a recipe with stages "
    "--stages.seg.optim.steps 10 reaches one. "
    "'tag2mask train RECIPE --help' lists them all; 'tag2mask list recipes' shows the recipes."
)


@dataclass(frozen=True)
class Train:
    """Train a recipe on tagged images."""

    recipe: tyro.conf.Positional[str] = ""
    """Name of a recipe that comes with the package (rml/synthetic_tiny), or a YAML file; with --resume
    it may be left out."""
    out: Path | None = None
    """Run folder to make; of a recipe with stages it may hold some of them already."""
    resume: Path | None = None
    """Run folder to go on from, exactly where it stopped; takes the place of --out."""
    stage: str | None = None
    """Run this stage of the recipe only; none: all, but for those that are whole already."""


def run(arguments: Sequence[str]) -> None:
    """Resolve the recipe and hand it to the trainer."""
    plain, overrides = split_overrides(arguments)
    named = plain[0] if plain and not plain[0].startswith("-") else ""
    if named and any(word in ("-h", "--help") for word in plain):
        show_keys(named, overrides)
        return
    raw = read_yaml(recipe_path(named)) if named else None
    _reject_unknown(plain, raw, named)
    chosen = parse(Train, plain, "train", more_help=MORE_HELP)
    folder, stage = _run_folder(chosen), chosen.stage
    if not named and stage is None:
        folder, stage = _whole_run(folder)
    where = named or str(folder / "recipe.yaml")
    recipe = apply_overrides(raw if named else read_yaml(folder / "recipe.yaml"), overrides, where)

    from tag2mask.pipeline import train

    is_first = os.environ.get("RANK", "0") == "0"  # torchrun's other processes say nothing
    command = shlex.join(["tag2mask", "train", *arguments])
    resume = chosen.resume is not None
    train(recipe, folder, resume=resume, stage=stage, command=command, tell=_tell)
    if is_first:
        print(f"trained: {folder / stage if stage else folder}\nnext:    {_next(folder, stage)}")


def _tell(line: str) -> None:
    """Print one line about a stage at once, between the lines of training."""
    print(line, flush=True)


def _next(folder: Path, stage: str | None) -> str:
    """The command that comes after this one."""
    if stage:
        return f"tag2mask train --resume {folder}"
    return f"tag2mask label {folder} DATA --out MASKS"


def _whole_run(folder: Path) -> tuple[Path, str | None]:
    """Return the run to resume, and which stage of it if `folder` is that of a stage."""
    whole = folder.parent / "recipe.yaml"
    if (folder / "recipe.yaml").is_file() and whole.is_file():
        raw = read_yaml(whole)
        stages = raw.get("stages") if isinstance(raw, Mapping) else None
        if isinstance(stages, Mapping) and folder.name in stages:
            return folder.parent, folder.name
    return folder, None


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
    told = ", ".join(f"{stage} ({config.run})" for stage, config in recipe.stages.items())
    stages = f" Stages: {told}; --stages.NAME.SECTION.KEY sets a key for one of them."
    sections: dict[str, Any] = {
        section: (type(value), value) for section, value in recipe if isinstance(value, Config)
    }
    keys = create_model("Keys", __base__=Config, **sections)
    tyro.cli(
        keys,
        prog=f"tag2mask train {name} --out RUN",
        description=f"Keys of the recipe {name}; defaults are what it sets."
        f"{stages if told else ''} {MORE_HELP}",
        args=["--help"],
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff,),
    )


def _reject_unknown(plain: Sequence[str], raw: object, where: str) -> None:
    """Raise a RecipeError for an option that is neither the command's nor dotted, with a hint."""
    own = ["help", *(field.name for field in fields(Train) if field.name != "recipe")]
    for word in plain:
        if word.startswith("--") and word[2:].partition("=")[0] not in own:
            kind = recipe_type(raw, where) if isinstance(raw, Mapping) else Recipe
            raise RecipeError(suggest_option(word, kind, own))
