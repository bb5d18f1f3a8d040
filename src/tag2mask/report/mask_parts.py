"""The masks that a run wrote, for the top of the page: what can be known without true masks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tag2mask.errors import DataError, RunError
from tag2mask.inference.mask_summary import ClassSummary, MaskSummary, summarize_masks
from tag2mask.io.mask_folder import CLASSES_FILE
from tag2mask.io.palette import css_color
from tag2mask.report.sections import Tile, percent

HOW_TO_ADD = "summary of masks: 'tag2mask report RUN --masks MASKS' adds it"
LISTED = 20
"""Number of most uncertain images in the list of the page."""


class MaskClass(NamedTuple):
    """One row of the table of classes."""

    name: str
    color: str
    summary: ClassSummary


class MaskParts(NamedTuple):
    """What the page says about one folder of masks."""

    folder: str
    summary: MaskSummary
    classes: tuple[MaskClass, ...]
    most_uncertain: tuple[tuple[str, float], ...]


def find_masks(run: Path, chosen: Path | None = None) -> Path | None:
    """Find the masks of a run: the chosen folder, or the newest one in the run folder.

    Masks of a run with stages lie beside the folder of its network.

    Raises:
        RunError: If the chosen folder holds no masks.
    """
    if chosen is not None:
        if not (chosen / CLASSES_FILE).is_file():
            raise RunError(
                f"{chosen}: has no {CLASSES_FILE}; give a folder that `label` or `predict` wrote"
            )
        return chosen
    roots = [run, run.parent] if (run.parent / "recipe.yaml").is_file() else [run]
    found = [path for root in roots for path in root.glob(f"*/{CLASSES_FILE}")]
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else newest.parent


def read_masks(folder: Path | None) -> tuple[MaskParts | None, tuple[str, ...]]:
    """Summarize a folder of masks; also return one line if there is nothing to summarize."""
    if folder is None:
        return None, (HOW_TO_ADD,)
    try:
        summary = summarize_masks(folder)
    except DataError as error:
        return None, (f"summary of masks: {error}",)
    if not summary.images:
        return None, (f"summary of masks: {folder} has no masks with scores",)
    classes = tuple(
        MaskClass(name, css_color(value), one)
        for value, (name, one) in enumerate(summary.classes.items(), start=1)
    )
    return MaskParts(str(folder), summary, classes, summary.uncertainty[:LISTED]), ()


def mask_tiles(masks: MaskParts | None) -> tuple[Tile, ...]:
    """Return the large numbers about a folder of masks."""
    if masks is None:
        return ()
    summary = masks.summary
    tiles = []
    if summary.uncertainty:
        mean = sum(value for _, value in summary.uncertainty) / len(summary.uncertainty)
        note = "mean over the masks; 0 is certain, 1 is not"
        tiles.append(Tile("uncertainty", f"{mean:.2f}", note))
    shown = summary.images - summary.negatives
    for title, names in (("empty masks", summary.empty), ("full-frame masks", summary.full_frame)):
        share = percent(len(names) / shown, " %") if shown else "-"
        tiles.append(Tile(title, str(len(names)), f"{share} of {shown:,} masks"))
    return tuple(tiles)
