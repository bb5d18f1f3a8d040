"""Write masks of tagged images; their tags choose the classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tag2mask.cli.inference import KEY_SECTIONS, load_segmenter, print_summary

if TYPE_CHECKING:  # these import torch, which --help need not load
    from tag2mask.config.overrides import Overrides
    from tag2mask.config.recipe import Recipe
    from tag2mask.data.base import Source

__all__ = ["EXAMPLES", "KEY_SECTIONS", "open_source", "run"]
EXAMPLES = """\
  tag2mask label RUN DATA --out MASKS
  tag2mask label RUN VOCdevkit/VOC2012 --split train --out MASKS
  tag2mask label RUN DATA predict.background=0.4 refiner=dense_crf --workers 4 --out MASKS
  tag2mask label RUN DATA method=advcam --out MASKS"""


def run(
    ctx: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Run folder that `train` or `demo` wrote, or a Hugging Face id."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder of tagged images: COCO format, VOC layout, tags.csv, tags.jsonl or a "
            "folder per class.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for masks, classes.json and scores; finished images are skipped.",
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="List of a VOC layout, split of COCO, or part (train, val, all) of a folder; "
            "default: the list that the run trained on, or the complete folder.",
        ),
    ] = None,
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
    """Write masks of tagged images; their tags choose the classes.

    KEY=VALUE words change the run's inference settings: keys of predict, refiner, data and method.
    refiner=NAME applies another refiner, refiner=none applies none. method=NAME reads the weights
    with another method: advcam and rib can read those of cam. 'tag2mask list keys RECIPE' explains
    every key.
    """
    from tag2mask.inference.writer import MaskWriter, label_dataset

    segmenter = load_segmenter(folder, weights, ctx.obj.overrides)
    source, part = open_source(segmenter.recipe, data, split, ctx.obj.overrides)
    settings = {**segmenter.settings("tags"), "split": part}
    writer = MaskWriter(out, segmenter.class_names, "tags", settings)
    summary = label_dataset(segmenter, source, writer, strict=strict, workers=workers)
    print_summary(summary, out)


def open_source(
    recipe: Recipe, root: Path, split: str | None, overrides: Overrides
) -> tuple[Source, str]:
    """Open the images to label, read as the layout of their folder asks.

    Args:
        recipe: Of the run.
        root: Folder of tagged images.
        split: Name of a list or part; None: see `run`.
        overrides: Keys of the line; they win over the layout.

    Returns:
        The source, and the name of the part or list.

    Raises:
        DataError: If the folder is missing or its images and tags contradict each other.
    """
    from tag2mask import plugins
    from tag2mask.config.overrides import apply_overrides
    from tag2mask.data.validation import layout_of

    keys = {"data.root": str(root), "data.name": layout_of(root), **overrides}
    data = apply_overrides(recipe.plain(), keys, str(root)).data
    is_voc, is_listed = data.name == "voc", data.name in ("coco", "voc")
    part = split or ("train" if is_listed else "all")
    # A list may be called `train` or `val` too; with its suffix it is always the list.
    source: Source = plugins.load("data", data.name)(
        data, f"{split}.txt" if split and is_voc else part
    )
    name = str(data.model_dump()["split"]) if is_listed and split is None else part
    return source, name
