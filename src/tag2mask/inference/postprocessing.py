"""From what was seen of an image to its mask: background, refiners, the image's own size.

First a draft: the few maps from which the mask is cut. Cutting needs no network, so that other
processes can do it.

Source:
    Specification 2.3 and 2.5 (labels), 2.7 (propagation), 2.11 (decoder), R18 (protocol),
    4.3 (sure pixels).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import PredictConfig
from tag2mask.functional.affinity import propagate
from tag2mask.functional.cam import upsample
from tag2mask.functional.pseudo_label import (
    confident_label,
    probs_with_background,
    with_constant_background,
    with_power_background,
)
from tag2mask.inference.multi_scale import SMALLEST_SIDE_PX, NetworkOutput, limited_size
from tag2mask.refiners.base import Refiner
from tag2mask.types import BACKGROUND

PROPAGATION_RADIUS = 8
"""Reach of propagation in cells of the last feature map, a square window (2.6)."""
STRIDES = (16, 8, 32, 4)
"""Strides of last feature maps, the usual one first."""


Kind = Literal["evidence", "probability", "logit"]
"""Of probabilities only the shares matter: they are brought to sum 1 where that is asked for."""
CONFIDENT_THRESHOLDS = {"irn": (0.30, 0.05), "psa": (4.0, 32.0)}
"""Strict and lenient cut where the recipe names none (Specification 4.3)."""


class SelectedMaps(NamedTuple):
    """The maps of one image from which a mask of chosen classes is cut."""

    class_indices: tuple[int, ...]
    """Indices of the K foreground classes that the mask may hold."""
    maps: Tensor
    """(1, K, h, w) evidence in [0, 1], or (1, 1 + K, h, w) with background first."""
    kind: Kind
    working_size: tuple[int, int]
    """(h, w) at which the network saw the image."""


class MaskOutput(NamedTuple):
    """A mask and what it was cut from."""

    mask: Tensor
    """(H, W) uint8 class values at the image's size."""
    probs: Tensor
    """(1, 1 + K, h, w) probabilities of background and the K chosen classes, in that order; at the
    image's size, or at the decoder's grid where nothing refined them."""


class PostProcessor(NamedTuple):
    """All that turns drafts into masks; can be sent to another process."""

    predict: PredictConfig
    refiner: Refiner | None
    crf: Refiner | None

    def __call__(self, image: Tensor, selected_maps: SelectedMaps) -> MaskOutput:
        """Cut the mask of a (1, 3, H, W) uint8 image; see `postprocess`."""
        return postprocess(image, selected_maps, self.predict, self.refiner, self.crf)


def select_maps(
    output: NetworkOutput, class_indices: Sequence[int], background: float
) -> SelectedMaps:
    """Pick the maps of chosen classes; evidence is spread where an affinity was asked for.

    Args:
        output: From `predict_multi_scale`.
        class_indices: Indices of the classes the mask may hold, as `select_classes` returns them.
        background: Its score while evidence is propagated along an affinity.
    """
    size = _size(output.cam)
    selected_cam = output.cam[:, list(class_indices)]
    if not class_indices:
        return SelectedMaps((), selected_cam, "evidence", size)
    if output.logits is not None:
        channels = [BACKGROUND, *(key + 1 for key in class_indices)]
        return SelectedMaps(tuple(class_indices), output.logits[:, channels], "logit", size)
    if output.propagation is not None:
        moved = output.propagation(selected_cam)
        kind: Kind = "evidence" if moved.shape[1] == len(class_indices) else "probability"
        return SelectedMaps(tuple(class_indices), moved, kind, size)
    if output.affinity is not None:
        grid = _grid(selected_cam.shape[-2:], output.affinity.shape[-1])
        moved = propagate_cam(selected_cam, output.affinity, grid, background)
        return SelectedMaps(tuple(class_indices), moved, "probability", size)
    return SelectedMaps(tuple(class_indices), selected_cam, "evidence", size)


def postprocess(
    image: Tensor,
    selected_maps: SelectedMaps,
    predict: PredictConfig,
    refiner: Refiner | None = None,
    crf: Refiner | None = None,
) -> MaskOutput:
    """Cut a mask.

    Args:
        image: (1, 3, H, W) uint8 RGB.
        selected_maps: From `select_maps`.
        predict: Score of background, and the largest side that is refined.
        refiner: Moves probabilities to the edges of the image, most of them at half the size that
            the network saw; None cuts the maps themselves.
        crf: A second one, at the image's size.

    Source:
        Specification R18 (3) to (5) and 2.11; without refiner and affinity 2.3: background
        where the largest evidence is at most the score of background.
    """
    size = _size(image)
    if not selected_maps.class_indices:
        return MaskOutput(
            torch.full(size, BACKGROUND, dtype=torch.uint8, device=image.device),
            torch.ones(1, 1, *size, device=image.device),
        )
    refiners = [one for one in (refiner, crf) if one is not None]
    if predict.confident:
        return _confident_mask(image, selected_maps, predict, refiners)
    if not refiners and selected_maps.kind == "evidence":
        return _cut(
            upsample(selected_maps.maps, size),
            selected_maps.class_indices,
            predict.background_score,
        )
    if not refiners and selected_maps.kind == "logit":
        return MaskOutput(
            _winner(selected_maps.maps, size, selected_maps.class_indices),
            selected_maps.maps.softmax(dim=1),
        )
    probs = selected_maps.maps
    for position, one in enumerate(refiners):
        view = _refiner_view(image, one, selected_maps.working_size, predict.max_side_px)
        if position == 0:
            probs = _first_probability(selected_maps, _size(view), predict.background_score)
        probs = one(view, upsample(probs, view.shape[-2:]))
    probs = upsample(probs, size)
    return MaskOutput(
        _class_values(probs.argmax(dim=1), selected_maps.class_indices), _shares(probs)
    )


def propagate_cam(
    selected_cam: Tensor,
    affinity: Tensor,
    grid: tuple[int, int],
    background: float,
    radius: int = PROPAGATION_RADIUS,
) -> Tensor:
    """Propagate (1, K, h, w) evidence of chosen classes over the affinity's grid.

    Args:
        selected_cam: In [0, 1).
        affinity: (1, L, L) in [0, 1].
        grid: (gh, gw), gh * gw = L.
        background: Its score beside the evidence.
        radius: Window of the walk, in cells.

    Returns:
        (1, 1 + K, gh, gw) probabilities, background first.

    Source:
        Specification 2.7. Departs: sums are brought back to 1, since the 0.1 in the divisor
        of the walk takes a little away everywhere and a refiner takes probabilities.
    """
    scores = probs_with_background(upsample(selected_cam, grid), background)
    moved = propagate(scores, affinity.float(), radius)
    return moved / moved.sum(dim=1, keepdim=True).clamp_min(1e-8)


def _first_probability(
    selected_maps: SelectedMaps, size: tuple[int, int], background: float
) -> Tensor:
    """(1, 1 + K, *size) probabilities that the first refiner takes."""
    if selected_maps.kind == "logit":
        return upsample(selected_maps.maps, size).softmax(dim=1)
    maps = resized_by_corners(selected_maps.maps, size)
    return (
        _shares(maps)
        if selected_maps.kind == "probability"
        else probs_with_background(maps, background)
    )


def _shares(probs: Tensor) -> Tensor:
    """(N, C, h, w) non-negative scores over their sum."""
    return probs / probs.sum(dim=1, keepdim=True).clamp_min(1e-8)


def confident_thresholds(predict: PredictConfig) -> tuple[float, float]:
    """Strict and lenient cut of `predict.confident`."""
    assert predict.confident is not None
    return predict.confident_thresholds or CONFIDENT_THRESHOLDS[predict.confident]


def _confident_mask(
    image: Tensor, selected_maps: SelectedMaps, predict: PredictConfig, refiners: Sequence[Refiner]
) -> MaskOutput:
    """Cut evidence twice, each cut through the refiners; 255 where the cuts disagree.

    Source:
        Specification 4.3: labels of IRN and PSA. The refiner is that of the recipe; those
        of the papers are dense CRFs with the settings of 5.1.
    """
    with_background = (
        with_constant_background if predict.confident == "irn" else with_power_background
    )
    views = [
        _refiner_view(image, one, selected_maps.working_size, predict.max_side_px)
        for one in refiners
    ]
    first = _size(views[0]) if views else _size(image)
    stacks = with_background(upsample(selected_maps.maps, first), confident_thresholds(predict))
    for one, view in zip(refiners, views, strict=True):
        stacks = one(view, _resize_probs(stacks, _size(view)))
    stacks = _resize_probs(stacks, _size(image))
    values = [
        _class_values(cut.argmax(dim=1), selected_maps.class_indices)
        for cut in stacks.unbind(dim=1)
    ]
    return MaskOutput(confident_label(*values), stacks[:, 0])


def _resize_probs(stacks: Tensor, size: tuple[int, int]) -> Tensor:
    return upsample(stacks.flatten(1, 2), size).reshape(*stacks.shape[:3], *size)


def _refiner_view(
    image: Tensor, refiner: Refiner, working_size: tuple[int, int], most: int | None
) -> Tensor:
    """The image as one refiner sees it: half the working size, or its own within the limit."""
    if not refiner.at_full_size:
        return upsample(image.float(), half_size(working_size))
    size = limited_size(image.shape[-2:], None, most)
    if size == _size(image):
        return image
    return upsample(image.float(), size).round().clamp(0, 255).to(torch.uint8)


def _cut(selected_cam: Tensor, class_indices: Sequence[int], background: float) -> MaskOutput:
    """Hard cut: background where the largest evidence does not exceed its score."""
    value, index = selected_cam.max(dim=1)  # (1, H, W)
    index = torch.where(value > background, index + 1, 0)
    return MaskOutput(
        _class_values(index, class_indices), probs_with_background(selected_cam, background)
    )


def _winner(logits: Tensor, size: tuple[int, int], class_indices: Sequence[int]) -> Tensor:
    """Mask values of the largest of (1, C, h, w) scores resized to `size`, one plane at a time.

    All planes of a large image at once would be gigabytes.
    """
    best = upsample(logits[:, :1], size)
    index = torch.zeros(best.shape[0], *size, dtype=torch.int64, device=logits.device)
    for channel in range(1, logits.shape[1]):
        plane = upsample(logits[:, channel : channel + 1], size)
        index.masked_fill_((plane > best)[:, 0], channel)
        best = torch.maximum(best, plane)
    return _class_values(index, class_indices)


def _grid(size: torch.Size, cells: int) -> tuple[int, int]:
    """Find the (h, w) grid of `cells` cells over a map of `size`: sides over a stride, rounded up.

    Raises:
        ValueError: If no such grid has that many cells.
    """
    height, width = (max(side, SMALLEST_SIDE_PX) for side in size)
    for stride in STRIDES:
        grid = (-(-height // stride), -(-width // stride))
        if grid[0] * grid[1] == cells:
            return grid
    raise ValueError(f"affinity has {cells} cells, which no stride gives for {height} x {width}")


def _class_values(index: Tensor, class_indices: Sequence[int]) -> Tensor:
    """Turn (1, H, W) positions in [background, *keys] into (H, W) uint8 mask values."""
    values = torch.tensor([BACKGROUND, *(key + 1 for key in class_indices)], dtype=torch.uint8)
    return values.to(index.device)[index[0]]


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def half_size(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) at which most refiners work on what the network saw at `size`."""
    return max(1, size[0] // 2), max(1, size[1] // 2)


def resized_by_corners(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) maps for a refiner; corners stay corners (Specification 2.4)."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
