"""What a run's network shows of a few images: strips, pair maps of a query point, head weights."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from PIL import Image as PILImage
from torch import Tensor
from torch.nn import functional as F

from tag2mask import plugins
from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.errors import NothingHeldOutError, Tag2MaskError
from tag2mask.evaluation.sources import spread_indices
from tag2mask.functional.cam import upsample
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import Method, evaluating
from tag2mask.methods.protocol import NetworkOutput
from tag2mask.report.run_parts import Run
from tag2mask.types import Image, Sample
from tag2mask.visualization.affinity_maps import AffinityMaps, ImageMaps, inspect_image
from tag2mask.visualization.panels import Panel, draw_strip, heat_over, stretched
from tag2mask.visualization.strips import strip_panels

FEW_IMAGES = 4
"""Images shown where the recipe asked for no samples while training."""
HEAD_WEIGHTS = "affinity.weight"
"""Parameter in which methods keep one weight per attention head."""
PROBE_PX = 64
"""Side of a black image that tells how many heads each block has."""

Point = tuple[float, float]
"""(x, y) as fractions of the image."""


class Picture(NamedTuple):
    """A PNG file in memory."""

    name: str
    png: bytes


class NetworkParts(NamedTuple):
    """What the trained network adds to the page; empty where it has nothing to show."""

    weights: str = ""
    """Which weights were loaded."""
    images: str = ""
    """Which images are shown."""
    strips: tuple[Picture, ...] = ()
    affinity_maps: tuple[Picture, ...] = ()
    head_weights: Mapping[str, Sequence[float]] = {}
    """Block -> weight of each of its heads."""
    missing: tuple[str, ...] = ()
    """One line per part that could not be made."""


def look_at_network(run: Run, query: Point | None = None) -> NetworkParts:
    """Load a run's best weights and let them look at a few held-out images, or training images.

    Args:
        run: Weights or images may be gone; then the parts that need them are named as missing.
        query: Where to look from; None takes each image's cell of strongest evidence.
    """
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        segmenter = Segmenter.load(run.folder, device=device)
    except Tag2MaskError as error:
        return NetworkParts(missing=(f"what the network sees: {_line(error)}",))
    recipe = run.recipe or segmenter.recipe
    parts = NetworkParts(
        weights=segmenter.origin["weights"], head_weights=head_weights(segmenter.method)
    )
    try:
        source, images = _shown(recipe.data)
        count = recipe.run.samples or FEW_IMAGES
        samples = [source[index] for index in spread_indices(len(source), count)]
    except Tag2MaskError as error:
        return parts._replace(missing=(f"what the network sees: {_line(error)}",))
    strips, affinity_maps = [], []
    for sample in samples:
        image_maps = inspect_image(segmenter, sample)
        strips.append(_picture(sample.name, strip_panels(segmenter, sample, image_maps)))
        if panels := pair_panels(segmenter, sample, image_maps, query):
            affinity_maps.append(_picture(sample.name, panels))
    missing: tuple[str, ...] = ()
    if query is not None and not affinity_maps:
        missing = ("pair maps of the query point: this network compares no cells",)
    return parts._replace(
        images=images, strips=tuple(strips), affinity_maps=tuple(affinity_maps), missing=missing
    )


def pair_panels(
    segmenter: Segmenter, sample: Sample, image_maps: ImageMaps, query: Point | None = None
) -> list[Panel]:
    """Show from where, and to where, the network looks; empty from one that compares no cells.

    Args:
        segmenter: The network.
        sample: Its tags say whose evidence is strongest.
        image_maps: What `inspect_image` saw of the image.
        query: (x, y) as fractions of the image; None takes the cell of strongest evidence.
    """
    image = sample.image
    affinity_maps = image_maps.affinity_maps
    if affinity_maps is None:
        return []
    if query is None:
        cell, why = _strongest_cell(segmenter, sample, image_maps.output, affinity_maps.grid)
    else:
        cell, why = affinity_maps.cell_of(query), f"query {query[0]:g}, {query[1]:g}"
    point = affinity_maps.center_of(cell)
    panels = [Panel(image, "query point", note=why, point=point)]
    if affinity_maps.attention is not None:
        row = affinity_maps.attention[cell]
        note = f"peak {float(row.max() * len(row)):.1f} x mean"
        heat = _row_heat(image, row, affinity_maps)
        panels.append(Panel(heat, "attention", note=note, point=point))
    if affinity_maps.affinity is not None:
        row = affinity_maps.affinity[cell]
        note = f"from {float(row.min()):.2f} to {float(row.max()):.2f}"
        heat = _row_heat(image, row, affinity_maps)
        window = affinity_maps.window_of(cell)
        panels.append(Panel(heat, "affinity", note=note, point=point, window=window))
    return panels


def head_weights(method: Method) -> dict[str, list[float]]:
    """Read what weight an affinity head has learned for each attention head, by block.

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


def _strongest_cell(
    segmenter: Segmenter, sample: Sample, output: NetworkOutput, grid: tuple[int, int]
) -> tuple[int, str]:
    """The cell with most evidence of the image's likeliest tag; of all classes if it has none."""
    class_indices = list(segmenter.select_classes(output, sample.tags, "tags")) or list(
        range(output.probs.shape[1])
    )
    key = max(class_indices, key=lambda key: float(output.probs[0, key]))
    compute_cam = F.adaptive_avg_pool2d(output.cam[0, key][None], grid)
    return int(compute_cam.argmax()), f"strongest {segmenter.class_names[key]}"


def _row_heat(image: Image, row: Tensor, affinity_maps: AffinityMaps) -> Image:
    """Heat of one row of a pair map, from its smallest to its largest value."""
    heat = upsample(row.view(1, 1, *affinity_maps.grid), image.shape[:2])[0, 0]
    return heat_over(image, stretched(heat.cpu().numpy()))


def _shown(config: DataConfig) -> tuple[Source, str]:
    """Held-out images, or those to learn from where none are held out."""
    kind = plugins.load("data", config.name)
    try:
        source: Source = kind(config, "val")
        if len(source):
            return source, "held-out images"
    except NothingHeldOutError:
        pass
    return kind(config, "train"), "images of the training list"


def _picture(name: str, panels: Sequence[Panel]) -> Picture:
    return Picture(name, png_of(draw_strip(panels)))


def png_of(picture: PILImage.Image) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _line(error: Exception) -> str:
    return str(error).splitlines()[0]
