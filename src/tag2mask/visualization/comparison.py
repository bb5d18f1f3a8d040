"""Figures across runs: one row per image, with the image, the truth and one column per run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from PIL import Image as PILImage

from tag2mask.errors import RunError
from tag2mask.inference.inspection import inspect_image
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.files import write_atomically
from tag2mask.types import Sample
from tag2mask.visualization.affinity_maps import Point, affinity_panels
from tag2mask.visualization.panels import (
    CAPTION_PX,
    PAPER,
    Panel,
    caption_width,
    draw_panel,
    mask_legend,
    overlay_mask,
)
from tag2mask.visualization.strips import cam_heat

What = Literal["masks", "cams", "attention", "affinity"]
PICTURE_WIDTH_PX = 200
COLUMN_MAX_WIDTH_PX = 320
GAP_PX = 6


def comparison_rows(
    segmenters: Mapping[str, Segmenter],
    samples: Sequence[Sample],
    what: What,
    *,
    tagged: bool,
    query: Point | None = None,
) -> list[list[Panel]]:
    """Draw the panels of a figure.

    Args:
        segmenters: Networks by the title of their column.
        samples: Images; a sample with a mask gets a panel with the truth.
        what: What each network shows.
        tagged: Whether the tags of the samples choose the classes; otherwise the classifier does.
        query: Point whose attention or affinity is drawn; None takes the position with the largest
            CAM of the first network that has such maps.

    Returns:
        One list of panels per image, all of the same length if all or no samples have a mask.

    Raises:
        RunError: If the networks have learned different classes.
    """
    names = _common_classes(segmenters)
    return [_row(segmenters, sample, what, names, tagged, query) for sample in samples]


def save_comparison(rows: Sequence[Sequence[Panel]], path: Path) -> None:
    """Draw rows of panels below each other, with aligned columns, and save them as PNG.

    Args:
        rows: Of equal length.
        path: Created, or replaced.

    Raises:
        RunError: If the file cannot be written.
    """
    picture = draw_grid(rows)
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def draw_grid(rows: Sequence[Sequence[Panel]]) -> PILImage.Image:
    """Draw rows of panels below each other; a column is as wide as its longest caption."""
    columns = zip(*rows, strict=True)
    widths = [
        min(max(PICTURE_WIDTH_PX, *map(caption_width, column)), COLUMN_MAX_WIDTH_PX)
        for column in columns
    ]
    heights = [_picture_height(row[0]) for row in rows]
    canvas = PILImage.new(
        "RGB",
        (
            sum(widths) + (len(widths) + 1) * GAP_PX,
            sum(heights) + len(heights) * (CAPTION_PX + GAP_PX) + GAP_PX,
        ),
        PAPER,
    )
    top = GAP_PX
    for row, height in zip(rows, heights, strict=True):
        left = GAP_PX
        for panel, width in zip(row, widths, strict=True):
            canvas.paste(draw_panel(panel, (PICTURE_WIDTH_PX, height), width), (left, top))
            left += width + GAP_PX
        top += height + CAPTION_PX + GAP_PX
    return canvas


def _row(
    segmenters: Mapping[str, Segmenter],
    sample: Sample,
    what: What,
    names: Sequence[str],
    tagged: bool,
    query: Point | None,
) -> list[Panel]:
    """Draw the panels of one image."""
    tags = [name for name, tag in zip(names, sample.tags, strict=True) if tag]
    note = f"tags: {', '.join(tags) or 'no class'}" if tagged else "classes from classifier"
    first = Panel(sample.image, sample.name, note=note, point=query)
    panels = []
    for title, segmenter in segmenters.items():
        if what == "masks":
            panel = _mask_panel(segmenter, sample, tagged)
        elif what == "cams":
            panel = _cam_panel(segmenter, sample, tagged)
        else:
            panel = _pair_panel(segmenter, sample, what, query)
            query = query or panel.point  # all networks show the position of the first one
        panels.append(panel._replace(title=title))
    if what in ("attention", "affinity"):
        first = first._replace(point=query)
    if sample.mask is None:
        return [first, *panels]
    legend = mask_legend(sample.mask, names)
    return [first, Panel(overlay_mask(sample.image, sample.mask), "ground truth", legend), *panels]


def _mask_panel(segmenter: Segmenter, sample: Sample, tagged: bool) -> Panel:
    """Draw the mask of one network, as `label` or `predict` makes it."""
    tags = sample.tags if tagged else None
    mask = segmenter.segment(sample.image, tags, name=sample.name).mask
    legend = mask_legend(mask, segmenter.class_names)
    return Panel(overlay_mask(sample.image, mask), "", legend, "all background")


def _cam_panel(segmenter: Segmenter, sample: Sample, tagged: bool) -> Panel:
    """Draw the largest CAM of the selected classes of one network."""
    tags = sample.tags if tagged else None
    output = segmenter.run_network(sample.image, tags, sample.name)
    selected = segmenter.select_classes(output, tags, "tags" if tagged else "classifier")
    classes = ", ".join(segmenter.class_names[index] for index in selected)
    note = "all classes" if len(selected) == len(segmenter.class_names) else classes or "no class"
    return Panel(cam_heat(sample.image, output.cam, selected), "", note=note)


def _pair_panel(segmenter: Segmenter, sample: Sample, what: What, query: Point | None) -> Panel:
    """Draw the attention or the affinity of one position; the bare image without such a map."""
    panels = affinity_panels(segmenter, sample, inspect_image(segmenter, sample), query)
    for panel in panels:
        if panel.title == what:
            return panel
    return Panel(sample.image, "", note=f"the network has no {what}")


def _common_classes(segmenters: Mapping[str, Segmenter]) -> tuple[str, ...]:
    """Return the classes of all networks.

    Raises:
        RunError: If they differ.
    """
    (first, one), *others = segmenters.items()
    for title, other in others:
        if other.class_names != one.class_names:
            raise RunError(
                f"{title} has learned {', '.join(other.class_names)}, and {first} "
                f"{', '.join(one.class_names)}; compare runs with the same classes"
            )
    return one.class_names


def _picture_height(panel: Panel) -> int:
    """Return the height of a picture at the width of a column, in pixels."""
    height, width = int(panel.picture.shape[0]), int(panel.picture.shape[1])
    return max(24, round(height * PICTURE_WIDTH_PX / width))
