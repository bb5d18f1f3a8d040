"""Inspect one image: the network output, and its attention and affinity maps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tag2mask.functional.cam import upsample
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.methods.protocol import MIN_SIDE_PX, NetworkOutput, resize_to_working_size
from tag2mask.types import Image, Sample

MAX_GRID_SIDE = 32
"""Larger images are shrunk (to 512 px at stride 16): 16 heads on a 64 x 64 grid take 1 GB."""


class AffinityMaps(NamedTuple):
    """Pairwise maps of the L = h * w positions of an image's feature grid, in raster order."""

    grid: tuple[int, int]
    """(h, w)."""
    attention: Tensor | None
    """(L, L), rows sum to 1; None from a network without attention."""
    affinity: Tensor | None
    """(L, L) symmetric, in [0, 1]; None from a method without affinity."""
    radius: int
    """Half side of the window in which affinity is learned and CAMs propagate, in positions."""

    def position_at(self, point: tuple[float, float]) -> int:
        """Return the index of the position under (x, y), given as fractions of the image."""
        height, width = self.grid
        column = min(int(point[0] * width), width - 1)
        row = min(int(point[1] * height), height - 1)
        return row * width + column

    def center_of(self, position: int) -> tuple[float, float]:
        """Return (x, y) of the center of a position, as fractions of the image."""
        height, width = self.grid
        return (position % width + 0.5) / width, (position // width + 0.5) / height

    def window_of(self, position: int) -> tuple[float, float, float, float] | None:
        """Return the window around a position.

        Returns:
            Left, top, right and bottom as fractions of the image; None if the window covers it all.
        """
        height, width = self.grid
        row, column = divmod(position, width)
        window = (
            max(column - self.radius, 0) / width,
            max(row - self.radius, 0) / height,
            min(column + self.radius + 1, width) / width,
            min(row + self.radius + 1, height) / height,
        )
        return None if window == (0, 0, 1, 1) else window


class ImageMaps(NamedTuple):
    """All maps that a network computes for one image."""

    output: NetworkOutput
    affinity_maps: AffinityMaps | None


def inspect_image(segmenter: Segmenter, sample: Sample) -> ImageMaps:
    """Run the network on one image and compute its affinity maps.

    Args:
        segmenter: Computes the maps.
        sample: Its tags reach methods that read them at inference.
    """
    output = segmenter.run_network(sample.image, sample.tags)
    return ImageMaps(output, compute_affinity_maps(segmenter, sample.image))


@torch.no_grad()
def compute_affinity_maps(segmenter: Segmenter, image: Image) -> AffinityMaps | None:
    """Compute attention and affinity of one image at scale 1.

    Args:
        segmenter: Computes the maps.
        image: (H, W, 3), any size; shrunk to at most MAX_GRID_SIDE positions a side.

    Returns:
        None from a network without attention and affinity.
    """
    method, config = segmenter.method, segmenter.config
    stride = method.backbone.strides[-1]
    max_side = min(config.max_side_px or MAX_GRID_SIDE * stride, MAX_GRID_SIDE * stride)
    rgb = image_tensor(image).to(segmenter.device)
    rgb = resize_to_working_size(rgb, config.model_copy(update={"max_side_px": max_side}))
    normalized = method.backbone.normalize(rgb)
    size = tuple(max(side, MIN_SIDE_PX) for side in normalized.shape[-2:])
    maps = method.attention_maps(upsample(normalized, size))
    attention, affinity = (_unbatched(maps.get(name)) for name in ("attention", "affinity"))
    if attention is None and affinity is None:
        return None
    grid = (-(-size[0] // stride), -(-size[1] // stride))
    return AffinityMaps(grid, attention, affinity, method.propagation_radius)


def _unbatched(maps: Tensor | None) -> Tensor | None:
    return None if maps is None else maps[0].float()
