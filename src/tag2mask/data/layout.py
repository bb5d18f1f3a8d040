"""Which data source reads a folder, by the files that it contains."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Layout = Literal["coco", "folder", "voc"]
"""Name of a data source (`data.name`)."""
VOC_IMAGES = "JPEGImages"
_READ_BY: dict[Layout, str] = {
    "coco": "it has COCO annotations",
    "voc": f"it has a folder {VOC_IMAGES}",
    "folder": "a tag file or class folders",
}


def layout_of(root: Path) -> Layout:
    """Return the name of the data source that reads a folder."""
    root = root.expanduser()
    if coco_splits(root):
        return "coco"
    return "folder" if voc_folder(root) is None else "voc"


def layout_hint(root: Path, read_as: Layout) -> str:
    """Return the end of a message that names the source that reads a folder; empty if it is used.

    Args:
        root: The folder.
        read_as: The source that could not read it.
    """
    fitting = layout_of(root)
    if fitting == read_as:
        return ""
    return f"; add data.name={fitting} ({_READ_BY[fitting]})"


def voc_folder(root: Path) -> Path | None:
    """Return the folder that contains JPEGImages: `root`, or VOC2012 inside it; None without."""
    folders = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    return next((folder for folder in folders if (folder / VOC_IMAGES).is_dir()), None)


def coco_splits(root: Path) -> list[str]:
    """Names of the splits whose instances file is found in a folder, sorted."""
    found = {path.parent.name for path in root.glob("*/_annotations.coco.json")}
    return sorted(
        found
        | {
            path.stem.removeprefix("instances_")
            for path in root.glob("annotations/instances_*.json")
        }
    )
