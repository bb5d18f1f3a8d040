"""The masks that a run wrote, for the top of the page: what can be known without true masks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tag2mask.errors import DataError, RunError
from tag2mask.inference.mask_summary import ClassSummary, MaskSummary, summarize_masks
from tag2mask.io.mask_folder import CLASSES_FILE, read_classes
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


def find_masks(run: Path, chosen: Path | None = None, sha256: str = "") -> Path | None:
    """Find the masks of a run: the chosen folder, or the newest one in or beside the run folder.

    Args:
        run: Run folder. Masks of a run with stages lie in it, beside the folder of its network.
        chosen: Folder that the user names.
        sha256: Fingerprint of the run's weights; folders beside the run count if they have it.

    Raises:
        RunError: If the chosen folder holds no masks.
    """
    if chosen is not None:
        if not (chosen / CLASSES_FILE).is_file():
            raise RunError(
                f"{chosen}: has no {CLASSES_FILE}; give a folder that `label` or `predict` wrote"
            )
        return chosen
    is_stage = (run.parent / "recipe.yaml").is_file()
    found = list(run.glob(f"*/{CLASSES_FILE}"))
    parent = run.parent if run.name not in ("", "..") else run.resolve().parent
    beside = parent.glob(f"*/{CLASSES_FILE}")
    found += [path for path in beside if is_stage or (sha256 and _has_weights(path, sha256))]
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else newest.parent


def _has_weights(path: Path, sha256: str) -> bool:
    """Return whether the masks beside a `classes.json` were made by certain weights."""
    try:
        return bool(read_classes(path.parent).get("settings", {}).get("sha256") == sha256)
    except DataError:
        return False


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
        tiles.append(Tile("uncertainty", f"{mean:.2f}", note, "uncertainty"))
    shown = summary.images - summary.negatives
    counted = (
        ("empty masks", summary.empty, "empty_mask"),
        ("full-frame masks", summary.full_frame, "full_frame"),
    )
    for title, names, word in counted:
        share = percent(len(names) / shown, " %") if shown else "-"
        tiles.append(Tile(title, str(len(names)), f"{share} of {shown:,} masks", word))
    return tuple(tiles)
