"""What the trained network adds to the page: strips, affinity maps, weights of attention heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from tag2mask.errors import DataError, Tag2MaskError
from tag2mask.evaluation.sources import spread_indices
from tag2mask.inference.inspection import inspect_image
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import Method, evaluating
from tag2mask.report.images import RunData
from tag2mask.report.pictures import Picture, jpeg_picture
from tag2mask.report.run_parts import Run
from tag2mask.visualization.affinity_maps import Point, affinity_panels
from tag2mask.visualization.strips import draw_strip, strip_panels

DEFAULT_IMAGES = 4
"""Number of images on the page if the recipe asks for no samples during training."""
MOST_IMAGES = 8
STRIP_BYTES = 120_000
"""Largest file of one strip."""
HEAD_WEIGHTS = "affinity.weight"
"""Parameter in which methods keep one weight per attention head."""
PAGE_PX = 1030
"""Width that the page has for pictures, in CSS pixels; see `templates/style.css`."""
PROBE_PX = 64
"""Side of the black image that counts the heads of each block."""


class NetworkParts(NamedTuple):
    """What the trained network adds to the page; empty where it has nothing to show."""

    weights: str = ""
    """Name of the loaded weights."""
    images: str = ""
    """Where the images come from."""
    strips: tuple[Picture, ...] = ()
    affinity_maps: tuple[Picture, ...] = ()
    head_weights: Mapping[str, Sequence[float]] = {}
    """Block -> weight of each of its attention heads."""
    missing: tuple[str, ...] = ()
    """One line per missing part."""


def open_network(run: Run) -> tuple[Segmenter | None, tuple[str, ...]]:
    """Load a run's best weights; also return one line if there are none."""
    try:
        return Segmenter.load(run.folder), ()
    except Tag2MaskError as error:
        return None, (_missing_line(error),)


def inspect_network(
    segmenter: Segmenter, run: Run, data: RunData, query: Point | None = None
) -> NetworkParts:
    """Inspect a few held-out images, or training images.

    Args:
        segmenter: Network of the run.
        run: Says how many samples the page shows.
        data: If its images are gone, the parts that need them are listed as missing.
        query: Point whose attention and affinity are shown; None takes the position with the
            largest CAM of each image.
    """
    recipe = run.recipe or segmenter.recipe
    parts = NetworkParts(
        weights=segmenter.origin["weights"], head_weights=head_weights(segmenter.method)
    )
    source = data.parts.get("val")
    images = "held-out images"
    if source is None or not len(source):
        source, images = data.parts.get("train"), "training images"
    if source is None:
        return parts._replace(missing=(f"samples from the trained network: {data.error}",))
    count = min(recipe.run.samples or DEFAULT_IMAGES, MOST_IMAGES)
    strips, affinity_maps = [], []
    missing: tuple[str, ...] = ()
    for index in spread_indices(len(source), count):
        try:
            sample = source[index]
        except DataError as error:
            missing = (_missing_line(error),)
            continue
        image_maps = inspect_image(segmenter, sample)
        strip = strip_panels(segmenter, sample, image_maps)
        strips.append(jpeg_picture(sample.name, draw_strip(strip, PAGE_PX), STRIP_BYTES))
        if panels := affinity_panels(segmenter, sample, image_maps, query):
            drawn = draw_strip(panels, PAGE_PX)
            affinity_maps.append(jpeg_picture(sample.name, drawn, STRIP_BYTES))
    if query is not None and not affinity_maps:
        missing = ("attention and affinity of the query point: this network computes neither",)
    return parts._replace(
        images=images, strips=tuple(strips), affinity_maps=tuple(affinity_maps), missing=missing
    )


def head_weights(method: Method) -> dict[str, list[float]]:
    """Read the weight that an affinity head has learned for each attention head.

    Returns:
        Block -> weights; empty from a method without an affinity head.
    """
    weight = dict(method.named_parameters()).get(HEAD_WEIGHTS)
    if weight is None:
        return {}
    probe = torch.zeros(1, 3, PROBE_PX, PROBE_PX, device=weight.device)
    with evaluating(method), torch.no_grad():
        attention = method.backbone(probe, attention=True).attention
    blocks = torch.split(weight.detach().cpu(), [block.heads for block in attention])
    count = len(blocks)
    return {f"block {k} of the last {count}": part.tolist() for k, part in enumerate(blocks, 1)}


def _missing_line(error: Exception) -> str:
    return f"samples from the trained network: {str(error).splitlines()[0]}"
