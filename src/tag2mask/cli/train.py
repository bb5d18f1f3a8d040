"""Train a recipe on tagged images; KEY=VALUE words change the recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from tag2mask.errors import RunError, Tag2MaskError

KEY_SECTIONS = ("data", "backbone", "method", "refiner", "optim", "predict", "run", "stages")
EXAMPLES = """\
  tag2mask train rml/animals_hybrid data.root=DATA backbone.weights=WEIGHTS --out RUN
  tag2mask train rml/voc_mitb1 data.root=VOC2012 optim.lr=1e-4 predict.scales=1.0,0.5 --out RUN
  tag2mask train rml/voc_mitb1 data.root=VOC2012 refiner=none method.name=cam --out RUN
  tag2mask train cam/synthetic_stages stages.seg.optim.steps=10 --out RUN
  tag2mask train --resume RUN"""


def run(
    ctx: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a bundled recipe, such as rml/synthetic_tiny, or a YAML file. Not needed "
            "with --resume.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="RUN",
            help="Run folder to create; with a recipe of stages it may hold some of them already.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Run folder to resume exactly where it stopped; takes the place of --out.",
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            "--stage",
            metavar="NAME",
            help="Run this stage of the recipe only; default: all unfinished stages.",
        ),
    ] = None,
) -> None:
    """Train a recipe on tagged images.

    KEY=VALUE words change the recipe: a list takes commas (predict.scales=1.0,0.5), none empties
    an optional key (refiner=none), method.name=cam switches the method, and
    stages.NAME.optim.steps=10 changes one stage. 'tag2mask list keys RECIPE' explains every key,
    'tag2mask list recipes' shows the bundled recipes.
    """
    from tag2mask.config.overrides import apply_overrides
    from tag2mask.config.recipe import read_yaml, recipe_path

    folder = _run_folder(recipe, out, resume)
    if recipe is None and stage is None:
        folder, stage = _run_of_stage(folder)
    path = recipe_path(recipe) if recipe is not None else folder / "recipe.yaml"
    resolved = apply_overrides(read_yaml(path), ctx.obj.overrides, recipe or str(path))

    from tag2mask.pipeline import train

    command, resumed = ctx.obj.command, resume is not None
    train(resolved, folder, resume=resumed, stage=stage, command=command, notify=_print_now)
    if os.environ.get("RANK", "0") == "0":  # torchrun's other processes print nothing
        done = folder / stage if stage else folder
        print(f"trained: {done}\nnext:    {_next_command(folder, stage)}")


def _print_now(line: str) -> None:
    """Print one line about a stage at once, between the lines of training."""
    print(line, flush=True)


def _next_command(folder: Path, stage: str | None) -> str:
    """Return the command that usually follows."""
    if stage:
        return f"tag2mask train --resume {folder}"
    return f"tag2mask label {folder} DATA --out MASKS"


def _run_of_stage(folder: Path) -> tuple[Path, str | None]:
    """Return the run that a stage's folder belongs to and the stage; or the folder and None."""
    from tag2mask.config.recipe import read_yaml

    parent = folder.parent / "recipe.yaml"
    if (folder / "recipe.yaml").is_file() and parent.is_file():
        raw = read_yaml(parent)
        stages = raw.get("stages") if isinstance(raw, Mapping) else None
        if isinstance(stages, Mapping) and folder.name in stages:
            return folder.parent, folder.name
    return folder, None


def _run_folder(recipe: str | None, out: Path | None, resume: Path | None) -> Path:
    """Return the run folder; reject a line that lacks it or contradicts itself."""
    if recipe is None and resume is None:
        raise Tag2MaskError(
            "missing: RECIPE ('tag2mask list recipes' shows all; see: tag2mask train --help)"
        )
    if out is None and resume is None:
        raise Tag2MaskError(
            "missing: --out RUN, the run folder to create (see: tag2mask train --help)"
        )
    if resume is not None and out not in (None, resume):
        raise Tag2MaskError(
            f"--out {out} and --resume {resume} name two run folders; leave out --out"
        )
    if resume is not None:
        _reject_resume(resume, recipe)
    return resume or out or Path()


def _reject_resume(folder: Path, recipe: str | None) -> None:
    """Reject a folder that contains no run, and a recipe beside --resume."""
    if not (folder / "recipe.yaml").is_file():
        what = "contains no run (no recipe.yaml)" if folder.is_dir() else "no such run folder"
        raise RunError(
            f"{folder}: {what}; --resume takes the folder that an earlier 'train' wrote, --out "
            "starts a new run"
        )
    if recipe is not None:
        raise Tag2MaskError(
            f"--resume {folder} goes with the run's own recipe; leave out {recipe}, or start a new "
            f"run: tag2mask train {recipe} --out NEW_RUN"
        )
