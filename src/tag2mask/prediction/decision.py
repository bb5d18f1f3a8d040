"""From what was seen of a photo to its mask: background, refiners, the photo's own size.

First a draft: the few maps from which the mask is cut. Cutting needs no network, so that other
processes can do it.

Source:
    methods specification 2.3 and 2.5 (labels), 2.7 (propagation), 2.11 (decoder), R18 (protocol),
    4.3 (sure pixels).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.affinity import propagate
from tag2mask.functional.cam import upsample
from tag2mask.functional.pseudo_label import (
    key_probability,
    level_stacks,
    power_stacks,
    sure_label,
)
from tag2mask.prediction.test_time import SMALLEST_SIDE_PX, Look, limited_size
from tag2mask.recipe import PredictConfig
from tag2mask.refiners.base import Refiner
from tag2mask.types import BACKGROUND

PROPAGATION_RADIUS = 8
"""Reach of propagation in cells of the last feature map, a square window (2.6)."""
STRIDES = (16, 8, 32, 4)
"""Strides of last feature maps, the usual one first."""


Kind = Literal["evidence", "probability", "logit"]
"""Of probabilities only the shares matter: they are brought to sum 1 where that is asked for."""
SURE_CUTS = {"irn": (0.30, 0.05), "psa": (4.0, 32.0)}
"""Strict and lenient cut where the recipe names none (methods specification 4.3)."""


class Draft(NamedTuple):
    """The maps of one photo from which a mask of chosen classes is cut."""

    keys: tuple[int, ...]
    """Indices of the K foreground classes that the mask may hold."""
    maps: Tensor
    """(1, K, h, w) evidence in [0, 1], or (1, 1 + K, h, w) with background first."""
    kind: Kind
    working_size: tuple[int, int]
    """(h, w) at which the network saw the photo."""


class Decision(NamedTuple):
    """A mask and what it was cut from."""

    mask: Tensor
    """(H, W) uint8 class values at the photo's size."""
    prob: Tensor
    """(1, 1 + K, h, w) probabilities of background and the K chosen classes, in that order; at the
    photo's size, or at the decoder's grid where nothing refined them."""


class Cutter(NamedTuple):
    """All that turns drafts into masks; can be sent to another process."""

    predict: PredictConfig
    refiner: Refiner | None
    crf: Refiner | None

    def __call__(self, photo: Tensor, draft: Draft) -> Decision:
        """Cut the mask of a (1, 3, H, W) uint8 photo; see `decide`."""
        return decide(photo, draft, self.predict, self.refiner, self.crf)


def drafted(seen: Look, keys: Sequence[int], background: float) -> Draft:
    """Pick the maps of chosen classes; evidence is spread where an affinity was asked for.

    Args:
        seen: From `collect`.
        keys: Indices of the classes the mask may hold, as `choose_classes` returns them.
        background: Its score while evidence is propagated along an affinity.
    """
    size = _size(seen.cam)
    picked = seen.cam[:, list(keys)]
    if not keys:
        return Draft((), picked, "evidence", size)
    if seen.logit is not None:
        channels = [BACKGROUND, *(key + 1 for key in keys)]
        return Draft(tuple(keys), seen.logit[:, channels], "logit", size)
    if seen.propagation is not None:
        moved = seen.propagation(picked)
        kind: Kind = "evidence" if moved.shape[1] == len(keys) else "probability"
        return Draft(tuple(keys), moved, kind, size)
    if seen.affinity is not None:
        grid = _grid(picked.shape[-2:], seen.affinity.shape[-1])
        moved = spread(picked, seen.affinity, grid, background)
        return Draft(tuple(keys), moved, "probability", size)
    return Draft(tuple(keys), picked, "evidence", size)


def decide(
    photo: Tensor,
    draft: Draft,
    predict: PredictConfig,
    refiner: Refiner | None = None,
    crf: Refiner | None = None,
) -> Decision:
    """Cut a mask.

    Args:
        photo: (1, 3, H, W) uint8 RGB.
        draft: From `drafted`.
        predict: Score of background, and the largest side that is refined.
        refiner: Moves probabilities to the edges of the photo, most of them at half the size that
            the network saw; None cuts the maps themselves.
        crf: A second one, at the photo's size.

    Source:
        methods specification R18 (3) to (5) and 2.11; without refiner and affinity 2.3: background
        where the largest evidence is at most the score of background.
    """
    size = _size(photo)
    if not draft.keys:
        return Decision(
            torch.full(size, BACKGROUND, dtype=torch.uint8, device=photo.device),
            torch.ones(1, 1, *size, device=photo.device),
        )
    refiners = [one for one in (refiner, crf) if one is not None]
    if predict.confident:
        return _sure(photo, draft, predict, refiners)
    if not refiners and draft.kind == "evidence":
        return _cut(upsample(draft.maps, size), draft.keys, predict.background_score)
    if not refiners and draft.kind == "logit":
        return Decision(_winner(draft.maps, size, draft.keys), draft.maps.softmax(dim=1))
    prob = draft.maps
    for position, one in enumerate(refiners):
        view = _refiner_view(photo, one, draft.working_size, predict.max_side_px)
        if position == 0:
            prob = _first_probability(draft, _size(view), predict.background_score)
        prob = one(view, upsample(prob, view.shape[-2:]))
    prob = upsample(prob, size)
    return Decision(_class_values(prob.argmax(dim=1), draft.keys), _shares(prob))


def spread(
    picked: Tensor,
    affinity: Tensor,
    grid: tuple[int, int],
    background: float,
    radius: int = PROPAGATION_RADIUS,
) -> Tensor:
    """Propagate (1, K, h, w) evidence of chosen classes over the affinity's grid.

    Args:
        picked: In [0, 1).
        affinity: (1, L, L) in [0, 1].
        grid: (gh, gw), gh * gw = L.
        background: Its score beside the evidence.
        radius: Window of the walk, in cells.

    Returns:
        (1, 1 + K, gh, gw) probabilities, background first.

    Source:
        methods specification 2.7. Departs: sums are brought back to 1, since the 0.1 in the divisor
        of the walk takes a little away everywhere and a refiner takes probabilities.
    """
    scores = key_probability(upsample(picked, grid), background)
    moved = propagate(scores, affinity.float(), radius)
    return moved / moved.sum(dim=1, keepdim=True).clamp_min(1e-8)


def _first_probability(draft: Draft, size: tuple[int, int], background: float) -> Tensor:
    """(1, 1 + K, *size) probabilities that the first refiner takes."""
    if draft.kind == "logit":
        return upsample(draft.maps, size).softmax(dim=1)
    maps = resized_by_corners(draft.maps, size)
    return _shares(maps) if draft.kind == "probability" else key_probability(maps, background)


def _shares(prob: Tensor) -> Tensor:
    """(N, C, h, w) non-negative scores over their sum."""
    return prob / prob.sum(dim=1, keepdim=True).clamp_min(1e-8)


def sure_cuts(predict: PredictConfig) -> tuple[float, float]:
    """Strict and lenient cut of `predict.confident`."""
    assert predict.confident is not None
    return predict.confident_cuts or SURE_CUTS[predict.confident]


def _sure(
    photo: Tensor, draft: Draft, predict: PredictConfig, refiners: Sequence[Refiner]
) -> Decision:
    """Cut evidence twice, each cut through the refiners; 255 where the cuts disagree.

    Source:
        Methods specification 4.3: labels of IRN and PSA. The refiner is that of the recipe; those
        of the papers are dense CRFs with the settings of 5.1.
    """
    stacked = level_stacks if predict.confident == "irn" else power_stacks
    views = [_refiner_view(photo, one, draft.working_size, predict.max_side_px) for one in refiners]
    first = _size(views[0]) if views else _size(photo)
    stacks = stacked(upsample(draft.maps, first), sure_cuts(predict))
    for one, view in zip(refiners, views, strict=True):
        stacks = one(view, _resized_stacks(stacks, _size(view)))
    stacks = _resized_stacks(stacks, _size(photo))
    values = [_class_values(cut.argmax(dim=1), draft.keys) for cut in stacks.unbind(dim=1)]
    return Decision(sure_label(*values), stacks[:, 0])


def _resized_stacks(stacks: Tensor, size: tuple[int, int]) -> Tensor:
    return upsample(stacks.flatten(1, 2), size).reshape(*stacks.shape[:3], *size)


def _refiner_view(
    photo: Tensor, refiner: Refiner, working_size: tuple[int, int], most: int | None
) -> Tensor:
    """The photo as one refiner sees it: half the working size, or its own within the limit."""
    if not refiner.at_full_size:
        return upsample(photo.float(), half_size(working_size))
    size = limited_size(photo.shape[-2:], None, most)
    if size == _size(photo):
        return photo
    return upsample(photo.float(), size).round().clamp(0, 255).to(torch.uint8)


def _cut(picked: Tensor, keys: Sequence[int], background: float) -> Decision:
    """Hard cut: background where the largest evidence does not exceed its score."""
    value, index = picked.max(dim=1)  # (1, H, W)
    index = torch.where(value > background, index + 1, 0)
    return Decision(_class_values(index, keys), key_probability(picked, background))


def _winner(logit: Tensor, size: tuple[int, int], keys: Sequence[int]) -> Tensor:
    """Mask values of the largest of (1, C, h, w) scores resized to `size`, one plane at a time.

    All planes of a large photo at once would be gigabytes.
    """
    best = upsample(logit[:, :1], size)
    index = torch.zeros(best.shape[0], *size, dtype=torch.int64, device=logit.device)
    for channel in range(1, logit.shape[1]):
        plane = upsample(logit[:, channel : channel + 1], size)
        index.masked_fill_((plane > best)[:, 0], channel)
        best = torch.maximum(best, plane)
    return _class_values(index, keys)


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


def _class_values(index: Tensor, keys: Sequence[int]) -> Tensor:
    """Turn (1, H, W) positions in [background, *keys] into (H, W) uint8 mask values."""
    values = torch.tensor([BACKGROUND, *(key + 1 for key in keys)], dtype=torch.uint8)
    return values.to(index.device)[index[0]]


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def half_size(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) at which most refiners work on what the network saw at `size`."""
    return max(1, size[0] // 2), max(1, size[1] // 2)


def resized_by_corners(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) maps for a refiner; corners stay corners (methods specification 2.4)."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
