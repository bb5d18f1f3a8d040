"""Panels of the attention and affinity of one position of an image."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tag2mask.inference.inspection import AffinityMaps, ImageMaps
from tag2mask.inference.segmenter import Segmenter
from tag2mask.types import Image, Sample
from tag2mask.visualization.heat_maps import overlay_map
from tag2mask.visualization.panels import Panel

Point = tuple[float, float]
"""(x, y) as fractions of the image."""


def affinity_panels(
    segmenter: Segmenter, sample: Sample, image_maps: ImageMaps, query: Point | None = None
) -> list[Panel]:
    """Draw the attention and the affinity of one position.

    Args:
        segmenter: Gives the class names.
        sample: Its tags select the class of the default position.
        image_maps: What `inspect_image` computed for the sample.
        query: None takes the position with the largest CAM.

    Returns:
        The query point, its attention and its affinity, as far as the network has them; empty from
        a network that has neither.
    """
    image = sample.image
    affinity_maps = image_maps.affinity_maps
    if affinity_maps is None:
        return []
    if query is None:
        position, note = _peak_position(segmenter, sample, image_maps, affinity_maps.grid)
    else:
        position, note = affinity_maps.position_at(query), f"query {query[0]:g}, {query[1]:g}"
    point = affinity_maps.center_of(position)
    panels = [Panel(image, "query point", note=note, point=point)]
    if affinity_maps.attention is not None:
        row = affinity_maps.attention[position]
        note = f"peak {float(row.max() * len(row)):.1f} x mean"
        heat = _row_heat(image, row, affinity_maps)
        panels.append(Panel(heat, "attention", note=note, point=point))
    if affinity_maps.affinity is not None:
        row = affinity_maps.affinity[position]
        note = f"from {float(row.min()):.2f} to {float(row.max()):.2f}"
        heat = _row_heat(image, row, affinity_maps)
        window = affinity_maps.window_of(position)
        panels.append(Panel(heat, "affinity", note=note, point=point, window=window))
    return panels


def _peak_position(
    segmenter: Segmenter, sample: Sample, image_maps: ImageMaps, grid: tuple[int, int]
) -> tuple[int, str]:
    """Return the position with the largest CAM of the most likely tag, or class without tags."""
    output = image_maps.output
    class_indices = list(segmenter.select_classes(output, sample.tags, "tags")) or list(
        range(output.probs.shape[1])
    )
    index = max(class_indices, key=lambda index: float(output.probs[0, index]))
    cam = F.adaptive_avg_pool2d(output.cam[0, index][None], grid)
    return int(cam.argmax()), f"peak of {segmenter.class_names[index]}"


def _row_heat(image: Image, row: Tensor, affinity_maps: AffinityMaps) -> Image:
    """Draw one (L,) row of a pairwise map as heat, from its minimum to its maximum."""
    return overlay_map(image, row.view(affinity_maps.grid))
