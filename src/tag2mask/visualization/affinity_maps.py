"""What a network says of pairs of cells of one image: its attention and its affinity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tag2mask.functional.cam import upsample
from tag2mask.inference.postprocessing import PROPAGATION_RADIUS
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.methods.base import evaluating
from tag2mask.methods.protocol import MIN_SIDE_PX, NetworkOutput, resize_to_working_size
from tag2mask.types import Image, Sample

LONGEST_SIDE_CELLS = 32
"""Larger images are shrunk (at stride 16 to 512 px): with 64 cells a side, 16 heads take 1 GB."""


class AffinityMaps(NamedTuple):
    """Pairs of the L = h * w cells of an image's grid, in raster order."""

    grid: tuple[int, int]
    """(h, w)."""
    attention: Tensor | None
    """(L, L), rows sum to 1; None from a network without attention."""
    affinity: Tensor | None
    """(L, L) symmetric, in [0, 1]; None where the method has none."""
    radius: int
    """Window in which affinity is learned and evidence walks, in cells."""

    def cell_of(self, point: tuple[float, float]) -> int:
        """Index of the cell under (x, y), fractions of the image in [0, 1]."""
        height, width = self.grid
        column = min(int(point[0] * width), width - 1)
        row = min(int(point[1] * height), height - 1)
        return row * width + column

    def center_of(self, cell: int) -> tuple[float, float]:
        """(x, y) of a cell's center, as fractions of the image."""
        height, width = self.grid
        return (cell % width + 0.5) / width, (cell // width + 0.5) / height

    def window_of(self, cell: int) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom of the cells within `radius`, as fractions; None if all are."""
        height, width = self.grid
        row, column = divmod(cell, width)
        window = (
            max(column - self.radius, 0) / width,
            max(row - self.radius, 0) / height,
            min(column + self.radius + 1, width) / width,
            min(row + self.radius + 1, height) / height,
        )
        return None if window == (0, 0, 1, 1) else window


class ImageMaps(NamedTuple):
    """All that a network sees of one image."""

    output: NetworkOutput
    affinity_maps: AffinityMaps | None


def inspect_image(segmenter: Segmenter, sample: Sample) -> ImageMaps:
    """Look at one image, and at its pairs of cells; the network's mode is put back."""
    output = segmenter.run_network(sample.image, sample.tags)
    return ImageMaps(output, compute_affinity_maps(segmenter, sample.image))


@torch.no_grad()
def compute_affinity_maps(segmenter: Segmenter, image: Image) -> AffinityMaps | None:
    """Ask a network for its pair maps of one image at scale 1.

    Args:
        segmenter: May be in training; its mode is put back.
        image: (H, W, 3), any size; looked at with at most LONGEST_SIDE_CELLS.

    Returns:
        None from a network that compares no cells.
    """
    method, plan = segmenter.method, segmenter.config
    stride = method.backbone.strides[-1]
    most = min(plan.max_side_px or LONGEST_SIDE_CELLS * stride, LONGEST_SIDE_CELLS * stride)
    rgb = image_tensor(image).to(segmenter.device)
    rgb = resize_to_working_size(rgb, plan.model_copy(update={"max_side_px": most}))
    view = method.backbone.normalize(rgb)
    size = tuple(max(side, MIN_SIDE_PX) for side in view.shape[-2:])
    with evaluating(method):
        maps = method.attention_maps(upsample(view, size))
    attention, affinity = (_one(maps.get(name)) for name in ("attention", "affinity"))
    if attention is None and affinity is None:
        return None
    grid = (-(-size[0] // stride), -(-size[1] // stride))
    radius = segmenter.recipe.method.model_dump().get("radius", PROPAGATION_RADIUS)
    return AffinityMaps(grid, attention, affinity, radius)


def _one(maps: Tensor | None) -> Tensor | None:
    return None if maps is None else maps[0].float()
