"""Write masks of untagged images; the classifier chooses the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tag2mask.cli.inference import KEY_SECTIONS, print_network, print_summary

__all__ = ["EXAMPLES", "KEY_SECTIONS", "run"]
EXAMPLES = """\
  tag2mask predict RUN image.jpg --out MASKS
  tag2mask predict RUN IMAGES more.png predict.class_threshold=0.7 --out MASKS
  tag2mask predict RUN IMAGES predict.scales=1.0,0.5 refiner=none --out MASKS"""


def run(
    ctx: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Run folder that `train` or `demo` wrote, or a Hugging Face id."
        ),
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", help="Images and folders of images.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for masks, classes.json and scores; finished images are skipped.",
        ),
    ],
    weights: Annotated[
        Literal["best", "last"], typer.Option("--weights", help="Weights of the run to use.")
    ] = "best",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at an unreadable image; otherwise skip it.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Processes that refine masks on the CPU; more help slow refiners such as "
            "dense_crf.",
        ),
    ] = 1,
) -> None:
    """Write masks of untagged images; the classifier chooses the classes.

    KEY=VALUE words change the run's inference settings: keys of predict, refiner, data and method.
    refiner=NAME applies another refiner, refiner=none applies none. method=NAME reads the weights
    with another method: advcam and rib can read those of cam. 'tag2mask list keys RECIPE' explains
    every key.
    """
    from tag2mask import api

    print_network(folder)
    summary = api.predict(
        folder,
        images,
        out,
        overrides=ctx.obj.overrides,
        which=weights,
        strict=strict,
        workers=workers,
    )
    print_summary(summary, out)
