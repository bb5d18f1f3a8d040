"""Open a folder of tagged images for a trained network, in whatever layout it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tag2mask import plugins
from tag2mask.config.overrides import apply_overrides
from tag2mask.config.recipe import Recipe
from tag2mask.data.base import Source
from tag2mask.data.index import count
from tag2mask.data.layout import layout_of
from tag2mask.data.tags import name_some
from tag2mask.errors import DataError, did_you_mean


def open_source(
    recipe: Recipe, root: Path, split: str | None, overrides: Mapping[str, str]
) -> tuple[Source, str]:
    """Open the tagged images of a folder, in whatever layout it has.

    Args:
        recipe: Of the run.
        root: Folder of tagged images.
        split: Name of a list or part; None: see `label`.
        overrides: Dotted recipe key -> text of its value; they win over the layout.

    Returns:
        The source, and the name of the list or part.

    Raises:
        DataError: If the folder is missing or its images and tags contradict each other.
    """
    texts = {"data.root": str(root), "data.name": layout_of(root), **overrides}
    data = apply_overrides(recipe.plain(), texts, str(root)).data
    is_voc, has_lists = data.name == "voc", data.name in ("coco", "voc")
    part = split or ("train" if has_lists else "all")
    # A VOC list may be named `train` or `val` too; with its suffix it is always the list.
    name = f"{split}.txt" if split and is_voc else part
    source: Source = plugins.load("data", data.name)(data, name)
    is_default_list = has_lists and split is None
    return source, str(data.model_dump()["split"]) if is_default_list else part


def reject_unknown_tags(source: Source, where: Path) -> None:
    """Reject images with tags that a run does not know; their masks would miss these objects.

    Raises:
        DataError: One line with each tag and its number of images.
    """
    if not source.unknown_tags:
        return
    found = [
        f"'{tag}' ({count(images, 'image')}){did_you_mean(tag, source.class_names)}"
        for tag, images in sorted(source.unknown_tags.items(), key=lambda one: -one[1])
    ]
    raise DataError(
        f"{where}: tags that this run does not know: {name_some(found, 10)}. It knows: "
        f"{', '.join(source.class_names)}. Correct the tags, or leave them out with "
        "--skip-unknown-tags (Python: skip_unknown_tags=True)"
    )
