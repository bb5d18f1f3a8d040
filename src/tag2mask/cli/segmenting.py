"""What `label` and `predict` share: a trained network with test-time settings from the shell."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tag2mask.config.overrides import apply_overrides
from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError

if TYPE_CHECKING:  # these import torch, which --help must not wait for
    from tag2mask.config.recipe import Recipe
    from tag2mask.inference.segmenter import Segmenter
    from tag2mask.inference.writer import WriteSummary

ALLOWED = ("predict", "refiner", "data", "method")
"""Sections that may be overridden after training."""


def predict_help() -> str:
    """Describe the test-time options for `--help`."""
    lines = [
        f"  --predict.{key}: {field.description}"
        for key, field in PredictConfig.model_fields.items()
    ]
    from tag2mask.plugins import available

    refiners = ", ".join(available("refiners"))
    return "\n".join(
        [
            "Test-time settings come from the run; to change one, put its option last:",
            f"  --refiner NAME: one of {refiners}; none: unrefined masks",
            "  --refiner.KEY: a setting of the refiner, such as --refiner.iterations 5",
            "  --method NAME: another method that can read the run's weights; advcam and rib can",
            "    read those of cam; --method.KEY: a setting of it",
            *lines,
        ]
    )


def reject_other_sections(overrides: Mapping[str, Sequence[str]], verb: str) -> None:
    """Raise a RecipeError for an override of what training has settled."""
    for key in overrides:
        if key.partition(".")[0] not in ALLOWED:
            raise RecipeError(
                f"--{key}: is settled when training; '{verb}' takes "
                f"{', '.join(f'--{section}.KEY' for section in ALLOWED)}"
            )


def load_segmenter(
    run: str, which: Literal["best", "last"], overrides: Mapping[str, Sequence[str]]
) -> Segmenter:
    """Load a run onto the fastest device at hand, with overridden test-time settings.

    A refiner named here is applied, also by a protocol that otherwise applies none. A method named
    here reads the run's weights.

    Raises:
        RecipeError: If an override does not fit.
        RunError: If the run is missing or holds no weights.
        WeightsError: If the named method has other parameters than the run's.
    """
    from tag2mask.checkpoint import stage_folder
    from tag2mask.inference.segmenter import Segmenter

    used = stage_folder(Path(run), "train")
    if used != Path(run):
        print(f"network: {used}, the last stage that trains")
    if "refiner.name" in overrides:
        overrides = {"predict.refine": ["true"], **overrides}

    def configure(trained: Recipe) -> Recipe:
        return apply_overrides(trained.plain(), overrides, f"{run}/recipe.yaml")

    return Segmenter.load(run, which, configure=configure if overrides else None)


def print_summary(written: WriteSummary, out: object) -> None:
    """Say what was written, what was there already, and which images could not be read."""
    for line in written.unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    already = f", {written.already} were there already" if written.already else ""
    skipped = f", {len(written.unreadable)} unreadable images skipped" if written.unreadable else ""
    print(f"{written.written} masks written to {out}{already}{skipped}")
