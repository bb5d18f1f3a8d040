"""Values of the sections of the page: headline, classes, data, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tag2mask import plugins
from tag2mask.config.recipe import Recipe
from tag2mask.data.base import Source
from tag2mask.errors import Tag2MaskError
from tag2mask.io.palette import css_color
from tag2mask.report.run_parts import Run, Values
from tag2mask.report.terms import CLASS_SOURCES, SETTINGS


class Tile(NamedTuple):
    """One large number of the headline."""

    name: str
    value: str
    note: str


class ScoreColumn(NamedTuple):
    """One column of the class table."""

    title: str
    class_source: str
    settings: str


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
    """Return every mean IoU with its class source; none without true masks.

    The score of the tags is no substitute: a classifier can be right about what an image shows
    while its masks cover the wrong pixels.
    """
    tiles = []
    for title, score in run.scores.items():
        note = f"{class_source_words(score)}; {score['images']:,} images"
        tiles.append(Tile(f"mIoU, {title}", percent(score["miou"], " %"), note))
    return tuple(tiles)


def speed_tiles(run: Run) -> tuple[Tile, ...]:
    """Return training time and speed."""
    tiles = []
    if run.metrics.get("seconds"):
        note = "without evaluation and saving"
        tiles.append(Tile("training time", duration(run.metrics["seconds"]), note))
    speeds = [speed for r in run.log if (speed := r.get("images_per_s")) is not None]
    if speeds:
        tiles.append(Tile("speed", f"{speeds[-1]:.1f}", "images per second at the end"))
    return tuple(tiles)


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
        ScoreColumn(title, class_source_words(score), _settings_words(score))
        for title, score in scores.items()
    )
    return ClassTable(columns, rows, tuple(score["miou"] for score in scores.values()))


def data_counts(recipe: Recipe | None) -> DataCounts | None:
    """Count the training images per class, read again from the data; None without a recipe."""
    if recipe is None:
        return None
    try:
        source: Source = plugins.load("data", recipe.data.name)(recipe.data, "train")
    except Tag2MaskError as error:
        return DataCounts(error=str(error))
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


def provenance(log: Sequence[Values]) -> tuple[dict[str, str], ...]:
    """Return command, seed, versions and machine of each start of the run; known ones only."""
    starts = [record for record in log if record.get("event") in ("start", "resume")]
    return tuple(
        {
            name: str(value)
            for name, value in {
                record["event"]: f"at step {record.get('step', 0):,}",
                "command": record.get("command"),
                "seed": record.get("seed"),
                "versions": _join(record.get("versions")),
                "machine": _join(record.get("machine")),
                "license of the weights": record.get("weights_license"),
            }.items()
            if value not in (None, "")
        }
        for record in starts
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


def _settings_words(score: Values) -> str:
    """List what one must know to compare a score."""
    settings = score.get("settings", {})
    parts = [f"{score['images']:,} images", class_source_words(score)]
    for key, label in SETTINGS.items():
        value = settings.get(key)
        if isinstance(value, dict):
            value = value.get("name")
        if key == "refiner" and key in settings and value is None:
            value = "none"
        if value is not None:
            parts.append(f"{label}: {_setting_text(key, value)}")
    return "; ".join(parts)


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
