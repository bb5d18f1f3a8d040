"""Write masks of untagged images; the classifier chooses their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from tag2mask.cli.parsing import parse, reject_no_workers
from tag2mask.cli.segmenting import (
    load_segmenter,
    predict_help,
    print_summary,
    reject_other_sections,
)
from tag2mask.config.overrides import split_overrides
from tag2mask.errors import Tag2MaskError


@dataclass(frozen=True)
class Predict:
    """Write masks of untagged images; the classifier chooses their classes (class source `classifier`)."""

    run: tyro.conf.Positional[str]
    """Run folder that `train` or `demo` wrote, or a hub id."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Images and folders of images."""
    out: Path
    """Folder for masks, classes.json and scores; what is done there already is not done again."""
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
    chosen = parse(Predict, plain, "predict", more_help=predict_help())
    if not chosen.images:
        raise Tag2MaskError("give at least one image or folder (see: tag2mask predict --help)")
    reject_other_sections(overrides, "predict")
    reject_no_workers(chosen.workers)

    from tag2mask.inference.writer import MaskWriter, predict_paths

    segmenter = load_segmenter(chosen.run, chosen.weights, overrides)
    writer = MaskWriter(
        chosen.out, segmenter.class_names, "classifier", segmenter.settings("classifier")
    )
    written = predict_paths(
        segmenter, list(chosen.images), writer, strict=chosen.strict, workers=chosen.workers
    )
    print_summary(written, chosen.out)
