"""Run everything once, without a download: train on synthetic scenes, label, score, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tag2mask.cli.evaluate import print_scores

if TYPE_CHECKING:  # these import torch, which --help need not load
    from tag2mask.config.recipe import Recipe
    from tag2mask.data.base import Source
    from tag2mask.inference.segmenter import Segmenter
    from tag2mask.types import Report

RECIPE = "rml/synthetic_tiny"
KEY_SECTIONS = ("data", "backbone", "method", "refiner", "optim", "predict", "run")
EXAMPLES = """\
  tag2mask demo
  tag2mask demo --out demo_run
  tag2mask demo optim.steps=100 data.count=50 --out short_demo"""
NEXT_STEPS = """
With your own images and tags:
  tag2mask check DATA
  tag2mask train DATA --out RUN
  tag2mask label RUN DATA --out MASKS
  tag2mask export MASKS --format coco --out masks.json"""


def run(
    ctx: typer.Context,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="RUN", help="Run folder; an interrupted demo resumes there."),
    ] = Path("demo_run"),
) -> None:
    """Run everything once, without a download: train on synthetic scenes, label, score, report.

    Recipe keys such as optim.steps=100 change the recipe of the demo.
    """
    from tag2mask.config.overrides import apply_overrides
    from tag2mask.config.recipe import recipe_path
    from tag2mask.io.yaml_files import read_yaml

    recipe = apply_overrides(read_yaml(recipe_path(RECIPE)), ctx.obj.overrides, RECIPE)

    from tag2mask.evaluation.tables import save_report
    from tag2mask.io.locks import folder_lock
    from tag2mask.report.page import write_report
    from tag2mask.training.trainer import train

    print(f"training {RECIPE}: {recipe.optim.steps:,} steps on synthetic scenes, from tags alone")
    command = f"tag2mask demo --out {out}"
    with folder_lock(out):
        train(recipe, out, resume=(out / "recipe.yaml").is_file(), command=command)
        report = label_held_out(recipe, out)
        save_report(report, out / "scores.json")
    print_scores(report)
    print(
        f"mIoU {report.miou:.3f} (classes from {report.class_source}) on {report.images} "
        "held-out scenes\n"
        f"images:  {out / 'images'}\n"
        f"masks:   {out / 'masks'}\n"
        f"report:  {write_report(out)}\n"
        f"{NEXT_STEPS}"
    )


def label_held_out(recipe: Recipe, out: Path) -> Report:
    """Write images, true masks and predicted masks of the held-out scenes, and score them.

    The tags of each scene choose its classes.
    """
    from tag2mask import plugins
    from tag2mask.inference.segmenter import Segmenter

    source: Source = plugins.load("data", recipe.data.name)(recipe.data, "val")
    return score_held_out(Segmenter.load(out), source, out)


def score_held_out(segmenter: Segmenter, source: Source, out: Path) -> Report:
    """Write images, true masks and predicted masks of a source, and score them."""
    from tag2mask.evaluation.folders import evaluate_folder
    from tag2mask.inference.writer import MaskWriter, label_dataset

    write_held_out(source, out)
    source.image_files = {name: out / "images" / f"{name}.png" for name in source.names}
    settings = {**segmenter.settings("tags"), "split": "val"}
    writer = MaskWriter(out / "masks", segmenter.class_names, "tags", settings)
    label_dataset(segmenter, source, writer)
    return evaluate_folder(out / "masks", out / "truth")


def write_held_out(source: Source, out: Path) -> None:
    """Write each scene's image and true mask, for comparison with the predicted masks."""
    from PIL import Image as PILImage

    from tag2mask.io.masks import save_mask

    for folder in ("images", "truth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for index in range(len(source)):
        sample = source[index]
        PILImage.fromarray(sample.image).save(out / "images" / f"{sample.name}.png")
        if sample.mask is not None:
            save_mask(sample.mask, out / "truth" / f"{sample.name}.png")
