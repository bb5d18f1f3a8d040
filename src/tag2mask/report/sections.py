"""Values of the sections of the page: headline, classes, data, provenance."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from tag2mask import plugins
from tag2mask.config.recipe import Recipe
from tag2mask.io.palette import css_color
from tag2mask.report.images import RunData
from tag2mask.report.run_parts import Run, Values
from tag2mask.report.terms import CLASS_SOURCES, SETTINGS, WORDS

MOST_STARTS = 20
"""Starts of an often interrupted run that the page lists."""


class Tile(NamedTuple):
    """One large number of the headline."""

    name: str
    value: str
    note: str
    word: str = ""
    """Key of its explanation; empty if the name explains itself."""


class Setting(NamedTuple):
    """A setting or fact with its value."""

    name: str
    value: str
    word: str = ""
    """Key of its explanation; empty if the name explains itself."""


class ScoreColumn(NamedTuple):
    """One column of the class table."""

    title: str
    class_source: str
    summary: str
    settings: tuple[Setting, ...]
    """What one must know to compare the score."""


class ClassRow(NamedTuple):
    """One row of the class table."""

    name: str
    color: str
    """As CSS writes it."""
    iou: tuple[float | None, ...]
    """One per column, in [0, 1]; None where a score does not have the class."""


class ClassTable(NamedTuple):
    """IoU of each class, one column per score."""

    columns: tuple[ScoreColumn, ...]
    rows: tuple[ClassRow, ...]
    miou: tuple[float | None, ...]


class DataCounts(NamedTuple):
    """Number of training images."""

    images: int = 0
    negatives: int = 0
    """Images without any class."""
    skipped: int = 0
    """Images that cannot be read."""
    masked: int = 0
    """Images with a true mask."""
    learns_masks: bool = False
    """Whether the run learned from these masks beside the tags."""
    per_class: tuple[tuple[str, int], ...] = ()
    error: str = ""
    """Why the data cannot be read; then nothing is counted."""


def score_tiles(run: Run) -> tuple[Tile, ...]:
    """Return the first mean IoU with its class source; none without true masks.

    The score of the tags is no substitute: a classifier can be right about what an image shows
    while its masks cover the wrong pixels.
    """
    tiles = []
    for title, score in list(run.scores.items())[:1]:
        note = f"mIoU of {title}; {class_source_words(score)}; {score['images']:,} images"
        tiles.append(Tile("average overlap", percent(score["miou"], " %"), note, "miou"))
    return tuple(tiles)


def time_tiles(run: Run) -> tuple[Tile, ...]:
    """Return the training time."""
    if not run.metrics.get("seconds"):
        return ()
    note = "without evaluation and saving"
    return (Tile("training time", duration(run.metrics["seconds"]), note),)


def class_table(scores: Mapping[str, Values]) -> ClassTable | None:
    """Return the IoU of each class in each score; None without scores."""
    if not scores:
        return None
    by_name = [
        dict(zip(("background", *score["class_names"]), score["iou"], strict=False))
        for score in scores.values()
    ]
    names = list(
        dict.fromkeys(n for s in scores.values() for n in ("background", *s["class_names"]))
    )
    rows = tuple(
        ClassRow(name, css_color(value), tuple(iou.get(name) for iou in by_name))
        for value, name in enumerate(names)
    )
    columns = tuple(
        ScoreColumn(
            title,
            class_source_words(score),
            f"{score['images']:,} images, {class_source_words(score)}",
            _settings_of(score),
        )
        for title, score in scores.items()
    )
    return ClassTable(columns, rows, tuple(score["miou"] for score in scores.values()))


def data_counts(recipe: Recipe | None, data: RunData) -> DataCounts | None:
    """Count the training images per class; None without a recipe."""
    if recipe is None:
        return None
    source = data.parts.get("train")
    if source is None:
        return DataCounts(error=data.error)
    return DataCounts(
        images=len(source),
        negatives=int((source.tags.sum(axis=1) == 0).sum()),
        skipped=len(source.skipped),
        masked=len(source.mask_indices),
        learns_masks=recipe.data.true_masks == "train",
        per_class=tuple(
            zip(source.class_names, source.tags.sum(axis=0).tolist(), strict=True),
        ),
    )


def provenance(run: Run) -> tuple[tuple[Setting, ...], ...]:
    """Return method, command, seed, versions and machine of each start of the run, if known."""
    made = _method_settings(run.recipe)
    starts = [record for record in run.log if record.get("event") in ("start", "resume")]
    known = [
        (
            Setting(record["event"], f"at step {record.get('step', 0):,}", "step"),
            Setting("command", str(record.get("command") or "")),
            Setting("seed", str(record.get("seed", "")), "seed"),
            Setting("versions", _join(record.get("versions"))),
            Setting("machine", _join(record.get("machine"))),
            Setting("license of the weights", record.get("weights_license") or "", "weights"),
        )
        for record in starts[-MOST_STARTS:]
    ]
    entries = [tuple(one for one in start if one.value) for start in known]
    return (made, *entries) if made else tuple(entries)


def method_title(name: str) -> str:
    """Return the first line of what a method says about itself, without its period."""
    kind = plugins.load("methods", name)
    text = inspect.getdoc(inspect.getmodule(kind)) or name
    return text.splitlines()[0].rstrip(".")


def _method_settings(recipe: Recipe | None) -> tuple[Setting, ...]:
    """Return the method and the backbone of a run."""
    if recipe is None:
        return ()
    name = recipe.method.name
    return (
        Setting("method", f"{method_title(name)} ({name})", "method"),
        Setting("backbone", recipe.backbone.name, "backbone"),
    )


def percent(value: float | None, unit: str = "") -> str:
    """Format 0.4567 as 45.7, and a missing score as a dash."""
    return "-" if value is None else f"{100 * value:.1f}{unit}"


def duration(seconds: float) -> str:
    """Format seconds as hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def class_source_words(score: Values) -> str:
    """Say where the classes of a score come from."""
    return CLASS_SOURCES.get(score.get("class_source") or "", "unknown class source")


def _settings_of(score: Values) -> tuple[Setting, ...]:
    """List what one must know to compare a score."""
    settings = score.get("settings", {})
    found = []
    for key, word in SETTINGS.items():
        value = settings.get(key)
        if isinstance(value, dict):
            value = value.get("name")
        if key == "refiner" and key in settings and value is None:
            value = "none"
        if value is not None:
            found.append(Setting(WORDS[word].label, _setting_text(key, value), word))
    return tuple(found)


def _setting_text(key: str, value: Any) -> str:
    if key == "long_side_px" and not value:
        return "as in the image"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _join(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    return ", ".join(f"{key} {value}" for key, value in values.items())
