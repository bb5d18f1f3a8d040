"""Fit the settings of a recipe to facts about images and machine: a pure function."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tag2mask.fitting.facts import DataFacts, MachineFacts

REFERENCE_IMAGES, REFERENCE_MINUTES, REFERENCE_CORES = 300, 10, 2
"""What the steps of a recipe for own images are meant for."""
CORE_POWER = 0.7
"""Steps per minute grow with the number of cores to this power."""
MOST_SPEED = 4.0
"""More cores than these need not train for more steps."""
FEWEST_STEPS = 50
SMALLEST_CROP_PX, CROP_MULTIPLE_PX = 64, 32
SMALL_MEMORY_GIB, SMALL_GPU_GIB = 4, 12
"""Below this memory, batches are halved."""
FEW_HELD_OUT = 10
"""With fewer held-out images, their score says too little to choose weights by."""


class Choice(NamedTuple):
    """A key of a recipe, its value and why."""

    key: str
    value: Any
    reason: str


def choose_data(facts: DataFacts) -> list[Choice]:
    """Choose the keys that say which images to read and what to learn."""
    form = {
        "folder": "a folder of images with a tag file or a folder per class",
        "voc": "PASCAL VOC layout",
        "coco": "COCO format",
    }[facts.source]
    counts = ", ".join(f"{name} {number:,}" for name, number in facts.classes.items())
    return [
        Choice("data.name", facts.source, f"The images are in {form}."),
        Choice("data.root", str(facts.root), "Relative to the folder in which you run tag2mask."),
        Choice(
            "data.classes",
            list(facts.classes),
            f"All tags in use, with their training images: {counts}. Remove what need not be "
            "learned.",
        ),
        *(
            Choice(f"data.{key}", name, "Chosen by its name among the lists of the data set.")
            for key, name in facts.lists.items()
        ),
    ]


def choose_settings(
    facts: DataFacts, machine: MachineFacts, raw: Mapping[str, Any], minutes: float | None = None
) -> list[Choice]:
    """Fit the settings of a recipe for own images.

    Args:
        facts: The images.
        machine: The machine.
        raw: The recipe as its file has it, meant for `REFERENCE_IMAGES` and `REFERENCE_CORES`.
        minutes: Time that training may take; None: as many steps as the images are worth.

    Returns:
        The choices, in the order of a recipe. Keys that are not named keep their value.
    """
    return [
        *_sizes(facts, raw),
        *_training(facts, machine, raw, minutes),
        *_prediction(facts, raw),
        *_running(facts, machine, raw),
    ]


def _sizes(facts: DataFacts, raw: Mapping[str, Any]) -> Iterator[Choice]:
    """Choose crop and size of training images; small images get a small crop."""
    full = raw["data"]["crop_px"]
    crop = fit_crop(full, facts.long_side_px)
    median = f"the images have a median long side of {facts.long_side_px:,} px"
    if crop < full:
        yield Choice("data.crop_px", crop, f"Smaller than usual ({full}): {median}.")
    else:
        yield Choice("data.crop_px", crop, f"Larger crops cost more time and memory; {median}.")
    for key in ("long_side_min_px", "long_side_max_px"):
        if raw["data"].get(key) is not None:
            value = round(raw["data"][key] * crop / full)
            yield Choice(
                f"data.{key}",
                value,
                f"{value / crop:.1f} times the crop: a crop shows most of an image.",
            )


def fit_crop(full: int, long_side_px: int) -> int:
    """Return a crop that is not larger than images need, in pixels.

    Example:
        >>> fit_crop(192, 500), fit_crop(192, 130)
        (192, 160)
    """
    needed = math.ceil(long_side_px / CROP_MULTIPLE_PX) * CROP_MULTIPLE_PX
    return min(full, max(needed, SMALLEST_CROP_PX))


def _training(
    facts: DataFacts, machine: MachineFacts, raw: Mapping[str, Any], minutes: float | None
) -> Iterator[Choice]:
    """Choose steps and batch."""
    steps = fit_steps(raw["optim"]["steps"], facts, machine, minutes)
    where = machine.gpu or f"{machine.cores} CPU cores"
    images = f"{facts.training_images:,} training images"
    reason = f"For {images} on {where}; time grows in proportion."
    if minutes is not None:
        reason = f"For about {minutes:g} minutes on {where}; time grows in proportion."
    yield Choice("optim.steps", steps, reason)
    batch = raw["optim"]["batch_size"]
    memory = machine.gpu_memory_gib if machine.gpu else machine.memory_gib
    limit = SMALL_GPU_GIB if machine.gpu else SMALL_MEMORY_GIB
    if 0 < memory < limit and batch > 1:
        reason = f"Half the usual batch: {where} with {memory:.0f} GiB of memory."
        yield Choice("optim.batch_size", batch // 2, reason)
        yield Choice("optim.accumulate_steps", 2, "Two batches per step make up for that.")
    else:
        yield Choice("optim.batch_size", batch, "Lower it if memory runs short.")


def fit_steps(
    steps: int, facts: DataFacts, machine: MachineFacts, minutes: float | None = None
) -> int:
    """Return the number of training steps, in tens.

    With a time, as many as fit into it. Without, more for more images (with their square root) and
    on more cores, because these take no longer.
    """
    speed = 1.0
    if machine.gpu is None:
        speed = min((machine.cores / REFERENCE_CORES) ** CORE_POWER, MOST_SPEED)
    if minutes is not None:
        wanted = steps * speed * minutes / REFERENCE_MINUTES
    else:
        size = math.sqrt(max(facts.training_images / REFERENCE_IMAGES, 1.0))
        wanted = steps * size * max(speed, 1.0)
    return max(round(wanted / 10) * 10, FEWEST_STEPS)


def _prediction(facts: DataFacts, raw: Mapping[str, Any]) -> Iterator[Choice]:
    """Choose how the network sees an image, and whether each image shows a class."""
    largest = raw["data"].get("long_side_max_px")
    if largest is not None:
        largest = round(largest * fit_crop(raw["data"]["crop_px"], facts.long_side_px))
        largest = round(largest / raw["data"]["crop_px"])
        if facts.long_side_px > largest:
            reason = "The network sees images as large as in training; masks keep the full size."
            yield Choice("predict.long_side_px", largest, reason)
    if raw.get("predict", {}).get("fallback"):
        reason = "Every image shows a class: the most probable one is drawn where none is sure."
        if facts.negatives:
            reason = f"{facts.negatives:,} images show no class, so a mask may be empty."
        yield Choice("predict.fallback", facts.negatives == 0, reason)


def _running(facts: DataFacts, machine: MachineFacts, raw: Mapping[str, Any]) -> Iterator[Choice]:
    """Choose arithmetic, loader processes, and which weights are the best ones."""
    settings = raw.get("run", {})
    if settings.get("precision") == "bf16" and not machine.has_bf16:
        yield Choice("run.precision", "fp32", "This machine does not compute in bf16.")
    most = 8 if machine.gpu else 4
    workers = min(max(machine.cores // 2, 1), most)
    yield Choice("run.workers", workers, f"Loader processes for {machine.cores} CPU cores.")
    if facts.held_out_images < FEW_HELD_OUT:
        reason = f"{facts.held_out_images} held-out images are too few to choose weights by."
        yield Choice("run.best", "last", reason)
