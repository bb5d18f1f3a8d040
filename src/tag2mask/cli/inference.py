"""What `label` and `predict` share: open a run with inference settings from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # these import torch, which --help need not load
    from tag2mask.config.overrides import Overrides
    from tag2mask.config.recipe import Recipe
    from tag2mask.inference.segmenter import Segmenter
    from tag2mask.inference.writer import WriteSummary

KEY_SECTIONS = ("predict", "refiner", "data", "method")
"""Sections of a recipe whose keys may change after training."""


def load_segmenter(run: str, which: Literal["best", "last"], overrides: Overrides) -> Segmenter:
    """Load a run on the GPU if there is one, with overridden inference settings.

    A refiner named on the line is applied even where the inference protocol applies none. A method
    named there reads the run's weights.

    Raises:
        RecipeError: If an override does not fit.
        RunError: If the run is missing or holds no weights.
        WeightsError: If the named method has other parameters than the run's.
    """
    from tag2mask.checkpoint import stage_folder
    from tag2mask.config.overrides import apply_overrides
    from tag2mask.inference.segmenter import Segmenter

    folder = stage_folder(Path(run), "train")
    if folder != Path(run):
        print(f"network: {folder}, the last stage that trains")
    if "refiner.name" in overrides:
        overrides = {"predict.refine": "true", **overrides}

    def configure(trained: Recipe) -> Recipe:
        return apply_overrides(trained.plain(), overrides, f"{run}/recipe.yaml")

    return Segmenter.load(run, which, configure=configure if overrides else None)


def print_summary(summary: WriteSummary, out: object) -> None:
    """Print how many masks were written or already there, and which images were unreadable."""
    for line in summary.unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    already = f", {summary.already} were there already" if summary.already else ""
    count = len(summary.unreadable)
    skipped = f", {count} unreadable images skipped" if summary.unreadable else ""
    print(f"{summary.written} masks written to {out}{already}{skipped}")
