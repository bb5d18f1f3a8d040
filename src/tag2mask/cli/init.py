"""Write a recipe fitted to a folder of images and this machine, each choice explained."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tag2mask.cli.target import DATA_HELP, fit_folder
from tag2mask.errors import RunError

KEY_SECTIONS = ("data", "backbone", "method", "refiner", "optim", "predict", "run", "stages")
EXAMPLES = """\
  tag2mask init DATA
  tag2mask init DATA --recipe afa/own_images --out tomatoes.yaml
  tag2mask init DATA --minutes 30 data.classes=cat,dog --out pets.yaml"""


def run(
    ctx: typer.Context,
    data: Annotated[Path, typer.Argument(metavar="DATA", help=DATA_HELP)],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="YAML file to create.")] = Path(
        "recipe.yaml"
    ),
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="Recipe to fit; default: rml/own_images, or rml/own_images_gpu where there is a "
            "GPU.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", metavar="N", min=1, help="Fit the steps to about this many minutes."
        ),
    ] = None,
) -> None:
    """Write a recipe fitted to a folder of images and this machine, each choice explained.

    'tag2mask train DATA' trains the same recipe without writing it first. KEY=VALUE words change
    it.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise RunError(f"--out {out}: the name of a recipe ends in .yaml")
    if out.exists():
        raise RunError(f"{out}: exists already; choose another name with --out")
    fitted = fit_folder(str(data), recipe, None, minutes)

    from tag2mask.fitting.recipe import explained_yaml
    from tag2mask.io.files import write_text

    folder = Path(f"{out.with_suffix('')}_run")
    command = shlex.join(["tag2mask", "train", str(out), "--out", str(folder)])
    write_text(out, explained_yaml(fitted, ctx.obj.overrides, command))
    for line in fitted.notes:
        print(line)
    print(f"written: {out}, from {fitted.name}\nnext:    {command}")
