"""What the trained network adds to the page: strips, affinity maps, weights of attention heads."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from tag2mask import plugins
from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.errors import NothingHeldOutError, Tag2MaskError
from tag2mask.evaluation.sources import spread_indices
from tag2mask.inference.inspection import inspect_image
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import Method, evaluating
from tag2mask.report.run_parts import Run
from tag2mask.visualization.affinity_maps import Point, affinity_panels
from tag2mask.visualization.panels import Panel
from tag2mask.visualization.strips import draw_strip, strip_panels

DEFAULT_IMAGES = 4
"""Number of images on the page if the recipe asks for no samples during training."""
HEAD_WEIGHTS = "affinity.weight"
"""Parameter in which methods keep one weight per attention head."""
PROBE_PX = 64
"""Side of the black image that counts the heads of each block."""


class Picture(NamedTuple):
    """A PNG file in memory."""

    name: str
    png: bytes

    @property
    def data_uri(self) -> str:
        """The file as an address that needs no network."""
        return f"data:image/png;base64,{b64encode(self.png).decode('ascii')}"


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


def inspect_network(run: Run, query: Point | None = None) -> NetworkParts:
    """Load a run's best weights and inspect a few held-out images, or training images.

    Args:
        run: If its weights or images are gone, the parts that need them are listed as missing.
        query: Point whose attention and affinity are shown; None takes the position with the
            largest CAM of each image.
    """
    try:
        segmenter = Segmenter.load(run.folder)
    except Tag2MaskError as error:
        return NetworkParts(missing=(_missing_line(error),))
    recipe = run.recipe or segmenter.recipe
    parts = NetworkParts(
        weights=segmenter.origin["weights"], head_weights=head_weights(segmenter.method)
    )
    try:
        source, images = _open_images(recipe.data)
        count = recipe.run.samples or DEFAULT_IMAGES
        samples = [source[index] for index in spread_indices(len(source), count)]
    except Tag2MaskError as error:
        return parts._replace(missing=(_missing_line(error),))
    strips, affinity_maps = [], []
    for sample in samples:
        image_maps = inspect_image(segmenter, sample)
        strips.append(_draw_picture(sample.name, strip_panels(segmenter, sample, image_maps)))
        if panels := affinity_panels(segmenter, sample, image_maps, query):
            affinity_maps.append(_draw_picture(sample.name, panels))
    missing: tuple[str, ...] = ()
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


def _open_images(config: DataConfig) -> tuple[Source, str]:
    """Open the held-out images, or the training images if none are held out."""
    kind = plugins.load("data", config.name)
    try:
        source: Source = kind(config, "val")
        if len(source):
            return source, "held-out images"
    except NothingHeldOutError:
        pass
    return kind(config, "train"), "training images"


def _draw_picture(name: str, panels: Sequence[Panel]) -> Picture:
    buffer = io.BytesIO()
    draw_strip(panels).save(buffer, format="PNG")
    return Picture(name, buffer.getvalue())


def _missing_line(error: Exception) -> str:
    return f"new samples from the trained network: {str(error).splitlines()[0]}"
