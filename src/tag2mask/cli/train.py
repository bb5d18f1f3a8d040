"""Train on a folder of tagged images, or a recipe; KEY=VALUE words change the recipe."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tag2mask.cli.launch import is_first
from tag2mask.cli.target import fit_folder, is_folder, read_recipe
from tag2mask.errors import RunError, Tag2MaskError

if TYPE_CHECKING:  # pydantic, which --help need not import
    from tag2mask.config.recipe import Recipe

KEY_SECTIONS = ("data", "backbone", "method", "refiner", "optim", "predict", "run", "stages")
SHARES_WORK = True
EXAMPLES = """\
  tag2mask train DATA --out RUN
  tag2mask train DATA --minutes 30 --out RUN
  tag2mask train DATA --recipe afa/own_images optim.lr=1e-4 --out RUN
  tag2mask train MORE_DATA --from RUN --out RUN2
  tag2mask train rml/voc_mitb1 data.root=VOC2012 predict.scales=1.0,0.5 refiner=none --out RUN
  tag2mask train cam/synthetic_stages stages.seg.optim.steps=10 --out RUN
  tag2mask train --resume RUN"""

TargetArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA|RECIPE",
        help="Folder of tagged images; or a recipe: the name of a bundled one, such as "
        "rml/synthetic_tiny, or a YAML file. Not needed with --resume.",
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="Recipe for the folder; default: rml/own_images, or rml/own_images_gpu where "
        "there is a GPU.",
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        metavar="N",
        min=1,
        help="Fit the steps to about this many minutes; default: to the number of images.",
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="RUN",
        help="Start from the weights of this run, with other images or classes; classes of "
        "equal name keep what they learned.",
    ),
]


def run(
    ctx: typer.Context,
    target: TargetArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="RUN",
            help="Run folder to create; with a recipe of stages it may hold some of them already.",
        ),
    ] = None,
    recipe: RecipeOption = None,
    minutes: MinutesOption = None,
    start: FromOption = None,
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
    """Train on a folder of tagged images, or a recipe.

    For a folder, a recipe is fitted to images and machine; 'tag2mask init DATA' writes and explains
    it. KEY=VALUE words change the recipe: a list takes commas (predict.scales=1.0,0.5), none
    empties an optional key (refiner=none), and stages.NAME.optim.steps=10 changes one stage.
    'tag2mask list recipes' shows all recipes, 'tag2mask list keys RECIPE' explains every key.
    """
    folder = _run_folder(target or recipe, out, resume)
    if target is None and recipe is None and stage is None:
        folder, stage = _run_of_stage(folder)
    names_data = target is not None and (recipe is not None or is_folder(target))
    _reject_words(target if names_data else None, folder, resume, (recipe, minutes, start))
    if resume is not None:
        _reject_resume(resume, target)
    if target is not None and names_data:
        resolved = _fitted(target, recipe, start, minutes, ctx.obj.overrides)
    elif minutes is not None:
        raise Tag2MaskError("--minutes: needs a folder of images; of a recipe set optim.steps")
    else:
        named = target or recipe or str(folder / "recipe.yaml")
        resolved = read_recipe(named, start, ctx.obj.overrides)

    from tag2mask.pipeline import train

    command, resumed = ctx.obj.command, resume is not None
    train(resolved, folder, resume=resumed, stage=stage, command=command, notify=_print_now)
    if is_first():
        done = folder / stage if stage else folder
        print(f"trained: {done}\nnext:    {_next_command(folder, stage, resolved)}")


def _fitted(
    data: str,
    recipe: str | None,
    start: str | None,
    minutes: float | None,
    overrides: Mapping[str, str],
) -> Recipe:
    """Fit a recipe to a folder, and print what was found and chosen."""
    fitted = fit_folder(data, recipe, start, minutes)
    resolved = fitted.resolve(overrides)
    if is_first():
        print("\n".join(fitted.summary()), flush=True)
    return resolved


def _reject_words(
    data: str | None, folder: Path, resume: Path | None, new: tuple[object, ...]
) -> None:
    """Reject what a resumed run cannot change, and a run inside the folder of its images."""
    if resume is not None and (data is not None or any(word is not None for word in new)):
        raise Tag2MaskError(
            f"--resume {resume}: takes recipe, images and weights from the run; leave out DATA, "
            "--recipe, --minutes and --from (data.root=DIR names images that moved)"
        )
    if data is not None and folder.resolve().is_relative_to(Path(data).resolve()):
        raise Tag2MaskError(
            f"--out {folder}: lies in the folder of images {data}, whose pictures would then "
            "include those of the run; choose a folder outside"
        )


def _print_now(line: str) -> None:
    """Print one line about a stage at once, between the lines of training."""
    print(line, flush=True)


def _next_command(folder: Path, stage: str | None, recipe: Recipe) -> str:
    """Return the command that usually follows, ready to paste."""
    if stage:
        return f"tag2mask train --resume {shlex.quote(str(folder))}"
    data = "DATA" if recipe.data.root is None else str(recipe.data.root)
    masks = folder.with_name(f"{folder.name}_masks")
    return shlex.join(["tag2mask", "label", str(folder), data, "--out", str(masks)])


def _run_of_stage(folder: Path) -> tuple[Path, str | None]:
    """Return the run that a stage's folder belongs to and the stage; or the folder and None."""
    from tag2mask.io.yaml_files import read_yaml

    parent = folder.parent / "recipe.yaml"
    if (folder / "recipe.yaml").is_file() and parent.is_file():
        raw = read_yaml(parent)
        stages = raw.get("stages") if isinstance(raw, Mapping) else None
        if isinstance(stages, Mapping) and folder.name in stages:
            return folder.parent, folder.name
    return folder, None


def _run_folder(target: str | None, out: Path | None, resume: Path | None) -> Path:
    """Return the run folder; reject a line that lacks it or contradicts itself."""
    if target is None and resume is None:
        raise Tag2MaskError(
            "missing: DATA, a folder of tagged images, or RECIPE ('tag2mask list recipes' shows "
            "all; see: tag2mask train --help)"
        )
    if out is None and resume is None:
        raise Tag2MaskError(
            "missing: --out RUN, the run folder to create (see: tag2mask train --help)"
        )
    if resume is not None and out not in (None, resume):
        raise Tag2MaskError(
            f"--out {out} and --resume {resume} name two run folders; leave out --out"
        )
    return resume or out or Path()


def _reject_resume(folder: Path, target: str | None) -> None:
    """Reject a folder that contains no run, and a recipe beside --resume."""
    if not (folder / "recipe.yaml").is_file():
        what = "contains no run (no recipe.yaml)" if folder.is_dir() else "no such run folder"
        raise RunError(
            f"{folder}: {what}; --resume takes the folder that an earlier 'train' wrote, --out "
            "starts a new run"
        )
    if target is not None:
        raise Tag2MaskError(
            f"--resume {folder}: takes the recipe from the run; leave out {target}, or start a new "
            f"run: tag2mask train {target} --out NEW_RUN"
        )
