"""Write masks of tagged images; their tags choose the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from tag2mask.cli.parsing import parse, reject_no_workers
from tag2mask.cli.segmenting import (
    load_segmenter,
    predict_help,
    print_summary,
    reject_other_sections,
)
from tag2mask.config.overrides import apply_overrides, split_overrides

if TYPE_CHECKING:  # these import torch, which --help must not wait for
    from tag2mask.config.recipe import Recipe
    from tag2mask.data.base import Source


@dataclass(frozen=True)
class Label:
    """Write masks of tagged images; their tags choose the classes (class source `tags`)."""

    run: tyro.conf.Positional[str]
    """Run folder that `train` or `demo` wrote, or a hub id."""
    data: tyro.conf.Positional[Path]
    """Folder of tagged images: in COCO format, in VOC layout, or with tags.csv, tags.jsonl or a
    folder per class."""
    out: Path
    """Folder for masks, classes.json and scores; what is done there already is not done again."""
    split: str | None = None
    """List of a VOC layout, split of COCO, or part (train, val, all) of a folder; none: the list
    the run trained on, or the whole folder."""
    weights: Literal["best", "last"] = "best"
    """Weights to use."""
    strict: bool = False
    """Stop at an unreadable image in place of skipping it."""
    workers: int = 1
    """Processes that refine and cut masks, on the processor; 1: all in one process. Worth it with
    slow refiners such as dense_crf."""


def run(arguments: Sequence[str]) -> None:
    """Segment every image that has no mask yet."""
    plain, overrides = split_overrides(arguments)
    chosen = parse(Label, plain, "label", more_help=predict_help())
    reject_other_sections(overrides, "label")
    reject_no_workers(chosen.workers)

    from tag2mask.inference.writer import MaskWriter, label_dataset

    segmenter = load_segmenter(chosen.run, chosen.weights, overrides)
    source, split = open_source(segmenter.recipe, chosen.data, chosen.split, overrides)
    settings = {**segmenter.settings("tags"), "split": split}
    writer = MaskWriter(chosen.out, segmenter.class_names, "tags", settings)
    written = label_dataset(segmenter, source, writer, strict=chosen.strict, workers=chosen.workers)
    print_summary(written, chosen.out)


def open_source(
    recipe: Recipe, root: Path, split: str | None, overrides: Mapping[str, Sequence[str]]
) -> tuple[Source, str]:
    """Open the images to label: those of `root`, read as the run's data or as their layout asks.

    Returns:
        The source, and the name of the part or list.

    Raises:
        DataError: If the folder is missing or its images and tags contradict each other.
    """
    from tag2mask import plugins
    from tag2mask.data.validation import layout_of

    forced: dict[str, Sequence[str]] = {
        "data.root": [str(root)],
        "data.name": [layout_of(root)],
        **overrides,
    }
    raw = recipe.plain()
    data = apply_overrides(raw, forced, str(root)).data
    is_voc, is_listed = data.name == "voc", data.name in ("coco", "voc")
    part = split or ("train" if is_listed else "all")
    # A list may be called `train` or `val` too; with its ending it is always the list.
    source: Source = plugins.load("data", data.name)(
        data, f"{split}.txt" if split and is_voc else part
    )
    named = str(data.model_dump()["split"]) if is_listed and split is None else part
    return source, named
