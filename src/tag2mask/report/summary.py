"""The top of the page: what was trained on which folder, how good it is, what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from tag2mask.data.tags import name_some
from tag2mask.report.mask_parts import MaskParts
from tag2mask.report.quality import Quality
from tag2mask.report.run_parts import Run, Values
from tag2mask.report.sections import DataCounts, class_source_words, duration, percent

FEW_TRUE_MASKS = 20
"""With fewer true masks, a score says little."""
MOST_CLASSES = 12


class MainScore(NamedTuple):
    """The score that the page leads with."""

    values: Values
    title: str
    """Which masks were compared."""


class NextStep(NamedTuple):
    """One thing to do next."""

    text: str
    command: str = ""


def page_title(run: Run) -> str:
    """Return the name of the user's folder: of the data, or else of the run."""
    recipe = run.recipe
    root = None if recipe is None else recipe.data.root
    if root is None or recipe is None or recipe.data.name == "synthetic":
        return run.folder.resolve().name
    return Path(root).resolve().name or run.folder.resolve().name


def main_score(run: Run) -> MainScore | None:
    """Return the score to lead with: of the masks on the page, of a file, or of training."""
    for title, values in run.scores.items():
        if values["miou"] is not None:
            return MainScore(values, title)
    return None


def training_sentences(run: Run, data: DataCounts | None) -> tuple[str, ...]:
    """Say what was trained on what, in at most three sentences."""
    recipe = run.recipe
    sentences = []
    if recipe is not None:
        classes = recipe.data.classes
        named = name_some(classes, MOST_CLASSES) if classes else "its classes"
        images = "generated scenes" if recipe.data.name == "synthetic" else "images"
        count = f"{data.images:,} " if data is not None and not data.error else ""
        sentences.append(f"A network learned to outline {named} from {count}tagged {images}.")
    if data is not None and data.learns_masks:
        sentences.append(f"It also learned from {data.masked:,} true masks drawn by hand.")
    elif recipe is not None and recipe.method.name != "supervised":
        sentences.append("Nobody drew masks for it: it saw only which objects an image shows.")
    sentences.extend(_progress(run))
    return tuple(sentences)


def quality_sentences(
    run: Run, score: MainScore | None, quality: Quality | None
) -> tuple[str, ...]:
    """Say how good the masks are; without true masks, that nobody knows."""
    if score is None:
        return _without_truth(run)
    values = score.values
    sentences = [
        f"Compared with {values['images']:,} true masks, the masks overlap them by "
        f"{percent(values['miou'], ' %')} on average (mIoU of {score.title}; "
        f"{class_source_words(values)}). 100 % is a perfect copy.",
    ]
    known = [
        (name, iou)
        for name, iou in zip(("background", *values["class_names"]), values["iou"], strict=False)
        if iou is not None and name != "background"
    ]
    if len(known) > 1:
        best, worst = max(known, key=lambda one: one[1]), min(known, key=lambda one: one[1])
        sentences.append(
            f"Best class: {best[0]} ({percent(best[1], ' %')}); "
            f"worst: {worst[0]} ({percent(worst[1], ' %')})."
        )
    if quality is not None and quality.mistakes:
        first = quality.mistakes[0]
        sentences.append(
            f"Most frequent mistake: {percent(first.share, ' %')} of the pixels of {first.true} "
            f"are called {first.called}."
        )
    if values["images"] < FEW_TRUE_MASKS:
        sentences.append(f"Only {values['images']} true masks: take the score as a rough one.")
    return tuple(sentences)


def next_steps(
    run: Run, masks: MaskParts | None, quality: Quality | None, best_threshold: float | None
) -> tuple[NextStep, ...]:
    """List what to do next, most urgent first, with the command to paste."""
    folder, data = shlex.quote(str(run.folder)), _data_words(run)
    steps: list[NextStep] = []
    if run.metrics and not run.metrics.get("finished", True):
        resume = f"tag2mask train --resume {folder}"
        steps.append(NextStep("Finish the training; a half-trained network misleads.", resume))
    if masks is None:
        label = f"tag2mask label {folder} {data} --out MASKS"
        return (*steps, NextStep("Write masks for your tagged images; then this report.", label))
    steps += [NextStep(f"{line[:1].upper()}{line[1:]}.") for line in masks.summary.advice]
    if best_threshold is not None:
        text = f"The threshold {best_threshold:g} scores better below. Let the command tune choose."
        steps.append(NextStep(text, f"tag2mask tune {folder} {data}"))
    steps += _correct(masks, quality, f"tag2mask app {folder} {data}")
    export = f"tag2mask export {shlex.quote(masks.folder)} --format coco --out masks.json"
    text = (
        "If the pictures below look right to you, bring the masks into your other tools. Most of "
        "them read COCO files."
    )
    return (*steps, NextStep(text, export))


def _correct(masks: MaskParts, quality: Quality | None, app: str) -> tuple[NextStep, ...]:
    """Return the two ways to correct masks, and what it is good for.

    Args:
        masks: What there is to correct.
        quality: How good it is, if known.
        app: Command that opens the page for correcting.
    """
    folder = shlex.quote(masks.folder)
    gain = "training can learn from them"
    if quality is None:
        gain = f"this report then says how good all masks are, and {gain}"
    page = (
        "Correct the most uncertain masks by hand, about 20. This command opens a web page with a "
        f"brush that shows them first and saves them into the folder masks of your data: {gain}."
    )
    tool = (
        "Or correct them in the labeling tool CVAT. 'tag2mask list formats' names other "
        "tools. 'tag2mask import' brings the masks back."
    )
    export = f"tag2mask export {folder} --most-uncertain 20 --format cvat --out to_correct"
    return NextStep(page, f"{app} --masks {folder}"), NextStep(tool, export)


def _data_words(run: Run) -> str:
    """Return the data folder as one types it."""
    root = run.recipe.data.root if run.recipe is not None else None
    return "DATA" if root is None else shlex.quote(str(root))


def _without_truth(run: Run) -> tuple[str, ...]:
    """Say what is known without true masks."""
    sentences = [
        "How good the masks are is unknown: there are no true masks to compare them with. What "
        "follows says how certain the network is; a network can be certain and wrong."
    ]
    best = run.metrics.get("best") or {}
    if "precision" in str(run.metrics.get("metric") or "") and best.get("score") is not None:
        sentences.append(
            "It recognizes which objects held-out images show (mean average precision of the tags: "
            f"{percent(best['score'], ' %')}); that says what it sees, not where."
        )
    return tuple(sentences)


def _progress(run: Run) -> list[str]:
    """Say how long training took, or how far it is."""
    step, steps = run.metrics.get("step"), run.metrics.get("steps")
    if step is None or steps is None:
        return []
    found = (record["machine"] for record in reversed(run.log) if "machine" in record)
    machine: Values = next(found, {})
    device = machine.get("device", "")
    where = f" on {machine.get('cpus')} CPU cores" if device == "cpu" else f" on {device}"
    took = f" in {duration(run.metrics['seconds'])}" if run.metrics.get("seconds") else ""
    if run.metrics.get("finished"):
        return [f"Training took {steps:,} steps{took}{where if device else ''}."]
    return [f"Training is not finished: {step:,} of {steps:,} steps{took}."]
