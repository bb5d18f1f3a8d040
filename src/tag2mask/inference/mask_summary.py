"""Summarize a folder of masks without true masks: classes, empty masks, the most uncertain ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tag2mask.errors import printable
from tag2mask.io.mask_folder import class_areas, read_classes, read_scores, read_skipped
from tag2mask.io.masks import read_mask

FULL_FRAME = 0.95
"""Share of its image from which a mask counts as full-frame."""
HIGH_SHARE = 0.1
"""Share of empty or full-frame masks from which the summary names a setting to change."""
SHOWN = 5
"""Number of most uncertain images that the summary names."""
STEP = 0.1
"""Change of the background score that the summary advises."""


class ClassSummary(NamedTuple):
    """One class in a folder of masks. An object is all pixels of one class in one image."""

    objects: int
    tagged: int | None
    """Number of images with this tag; None if the masks were made without tags."""
    median_area: float
    """Median share of the image that an object covers; 0 without objects."""


@dataclass(frozen=True, slots=True)
class MaskSummary:
    """What a folder of masks contains, over all runs that wrote into it."""

    images: int
    classes: Mapping[str, ClassSummary]
    empty: tuple[str, ...]
    """Images whose mask has no class although a tag, or the classifier, asked for one."""
    negatives: int
    """Images without a tag, whose masks are background by intent."""
    full_frame: tuple[str, ...]
    """Images that classes cover by `FULL_FRAME` or more."""
    skipped: int
    """Images that could not be read."""
    uncertainty: tuple[tuple[str, float], ...]
    """Name and uncertainty of each image that has one, most uncertain first."""
    advice: tuple[str, ...]
    """One line per setting to try."""

    @property
    def most_uncertain(self) -> tuple[tuple[str, float], ...]:
        """The images to inspect first."""
        return self.uncertainty[:SHOWN]


def summarize_masks(
    folder: Path, inside: Path = Path(), records: Path | None = None
) -> MaskSummary:
    """Summarize all masks of a folder that `label` or `predict` wrote.

    Args:
        folder: Has `classes.json` and `scores.jsonl`.
        inside: Folder of the masks, relative to `folder`.
        records: Folder of `scores.jsonl` and `skipped.json`, for the masks of one shard; None:
            `folder`.

    Raises:
        DataError: If `classes.json` or a mask cannot be read.
    """
    records = folder if records is None else records
    described, rows = read_classes(folder), read_scores(records)
    names: tuple[str, ...] = tuple(described["classes"])
    areas = {name: _areas(folder / inside, name, row, names) for name, row in rows.items()}
    return summarize_rows(described, rows, areas, len(read_skipped(records)))


def summarize_rows(
    described: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    areas: Mapping[str, Mapping[str, float]],
    skipped: int,
) -> MaskSummary:
    """Summarize masks by their rows of scores.

    Args:
        described: Contents of `classes.json`.
        rows: By name of the image.
        areas: Share of each class in each mask.
        skipped: Number of images that could not be read.
    """
    names: tuple[str, ...] = tuple(described["classes"])
    tags = {name: row["tags"] for name, row in rows.items() if "tags" in row}
    negatives = {name for name, own in tags.items() if not own}
    empty = tuple(name for name, own in areas.items() if not own and name not in negatives)
    full = tuple(name for name, own in areas.items() if sum(own.values()) >= FULL_FRAME)
    uncertain = [(name, row["uncertainty"]) for name, row in rows.items() if "uncertainty" in row]
    settings, shown = described.get("settings", {}), len(rows) - len(negatives)
    if settings.get("has_background") is False:
        full = ()  # every mask covers its image
    return MaskSummary(
        images=len(rows),
        classes={name: _summarize_class(name, areas, tags) for name in names},
        empty=empty,
        negatives=len(negatives),
        full_frame=full,
        skipped=skipped,
        uncertainty=tuple(sorted(uncertain, key=lambda one: -one[1])),
        advice=tuple(_advice(len(empty), len(full), shown, settings)),
    )


def summary_lines(summary: MaskSummary) -> list[str]:
    """Return a summary as lines of text."""
    if not summary.images:
        return []
    negatives = f", {summary.negatives} without tags (all background)" if summary.negatives else ""
    lines = [
        f"in this folder: {summary.images} masks, {_count(summary.empty, summary)} empty, "
        f"{_count(summary.full_frame, summary)} full-frame{negatives}"
    ]
    width = max(len("class"), *(len(name) for name in summary.classes))
    lines.append(f"  {'class':<{width}}  images   tagged  median area")
    for name, one in summary.classes.items():
        tagged = "-" if one.tagged is None else f"{one.tagged}"
        area = f"{one.median_area:.0%}" if one.objects else "-"
        lines.append(f"  {name:<{width}}  {one.objects:>6}   {tagged:>6}  {area:>11}")
    lines += [f"warning: {line}" for line in summary.advice]
    if summary.most_uncertain:
        listed = ", ".join(
            f"{printable(name)} ({value:.2f})" for name, value in summary.most_uncertain
        )
        lines.append(f"most uncertain, inspect first: {listed}")
    return lines


def _areas(
    masks: Path, name: str, row: Mapping[str, Any], class_names: Sequence[str]
) -> dict[str, float]:
    """Return the share of each class in a mask: from its row, or of older folders from the mask."""
    if "areas" in row:
        areas: dict[str, float] = row["areas"]
        return areas
    return class_areas(read_mask(masks / f"{name}.png", len(class_names)), class_names)


def _summarize_class(
    name: str,
    areas: Mapping[str, Mapping[str, float]],
    tags: Mapping[str, Sequence[str]],
) -> ClassSummary:
    shares = [own[name] for own in areas.values() if name in own]
    tagged = sum(name in own for own in tags.values()) if tags else None
    return ClassSummary(len(shares), tagged, median(shares) if shares else 0.0)


def _advice(empty: int, full: int, images: int, settings: Mapping[str, Any]) -> list[str]:
    """Return a line for each share of masks that is suspiciously high."""
    lines = []
    if images and empty / images > HIGH_SHARE:
        lines.append(f"{empty / images:.0%} of the masks are empty; {_setting(settings, -STEP)}")
    if images and full / images > HIGH_SHARE:
        lines.append(
            f"{full / images:.0%} of the masks cover the complete image; {_setting(settings, STEP)}"
        )
    return lines


def _setting(settings: Mapping[str, Any], change: float) -> str:
    """Return which setting to try, with its present value."""
    background = settings.get("background")
    if background is None and settings.get("background_rule") == "otsu":
        return "try a fixed background score: predict.background_rule=fixed"
    if not isinstance(background, int | float) or settings.get("protocol") == "decoder":
        return "try masks from the class activation maps: predict.protocol=cam"
    value = min(max(background + change, 0.05), 0.95)
    return f"try predict.background={value:.2g} (now {background:g}) in a new folder"


def _count(names: Sequence[str], summary: MaskSummary) -> str:
    share = len(names) / summary.images
    return f"{len(names)} ({share:.0%})" if names else "0"
