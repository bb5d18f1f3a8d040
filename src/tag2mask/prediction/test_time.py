"""From one photo to one mask: evidence over scales, the class gate, background, refining.

Source:
    methods specification 2.2 (multi-scale evidence), 2.3 and 2.5 (labels), 2.7 (propagation),
    R18 (protocol).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.affinity import propagate
from tag2mask.functional.cam import multi_scale_cam, upsample
from tag2mask.methods.base import Method
from tag2mask.recipe import PredictConfig
from tag2mask.refiners.base import Refiner
from tag2mask.types import BACKGROUND, Gate

PROPAGATION_BACKGROUND = 0.35
"""Score of background while evidence is propagated (methods specification 2.7)."""
PROPAGATION_RADIUS = 8
"""Reach of propagation in cells of the last feature map, a square window (2.6)."""
STRIDES = (16, 8, 32, 4)
"""Strides of last feature maps, the usual one first."""
SMALLEST_SIDE_PX = 32
"""Smallest side a backbone takes; smaller views are enlarged for it."""


class Look(NamedTuple):
    """What a network says about one photo, before any class or threshold is chosen."""

    cam: Tensor
    """(1, F, h, w) evidence in [0, 1) of every class, present or not, at the working size."""
    prob: Tensor
    """(1, F) class probabilities."""
    affinity: Tensor | None
    """(1, L, L) in [0, 1] over the grid of the last feature map, or None where not asked for."""


class Decision(NamedTuple):
    """A mask and what it was cut from."""

    mask: Tensor
    """(H, W) uint8 class values at the photo's size."""
    prob: Tensor
    """(1, 1 + K, H, W) probabilities of background and the K chosen classes, in that order."""


@torch.no_grad()
def collect(
    method: Method, photo: Tensor, predict: PredictConfig, tags: Tensor | None = None
) -> Look:
    """Look at one photo at every scale; one pass per scale, both mirror images stacked.

    Args:
        method: In evaluation mode, on the device of `photo`.
        photo: (1, 3, H, W) uint8 RGB.
        predict: Scales, mirror images, working size.
        tags: (1, F) in {0, 1} for methods that read them while labelling.

    Source:
        methods specification 2.2, R18 (1), (2): scale 1's logits are averaged over mirror images.
    """
    image = method.backbone.normalise(working_photo(photo, predict))
    logits: list[Tensor] = []

    def cam_of(view: Tensor) -> Tensor:
        seen = method.evidence(_at_least(view, SMALLEST_SIDE_PX), _repeated(tags, len(view)))
        logits.append(seen.logit)
        return seen.cam.float()

    cam = multi_scale_cam(cam_of, image, predict.scales, flip=predict.flip)
    if 1.0 in predict.scales:
        prob = _probability(logits[predict.scales.index(1.0)])
    else:
        prob = class_probability(method, photo, predict, tags)
    affinity = None
    if predict.propagate:
        affinity = method.maps(_at_least(image, SMALLEST_SIDE_PX)).get("affinity")
    return Look(cam, prob, affinity)


@torch.no_grad()
def class_probability(
    method: Method, photo: Tensor, predict: PredictConfig, tags: Tensor | None = None
) -> Tensor:
    """(1, F) class probabilities of one (1, 3, H, W) uint8 photo, from scale 1 alone."""
    image = method.backbone.normalise(working_photo(photo, predict))
    image = _at_least(image, SMALLEST_SIDE_PX)
    view = torch.cat([image, image.flip(-1)]) if predict.flip else image
    return _probability(method.evidence(view, _repeated(tags, len(view))).logit)


def choose_classes(
    prob: Tensor, tags: Tensor | None, predict: PredictConfig, gate: Gate
) -> tuple[int, ...]:
    """Choose the classes a mask may hold.

    Args:
        prob: (1, F) class probabilities, read under the gate `predicted`.
        tags: (1, F) in {0, 1}, read under the gate `oracle`.
        predict: Threshold, and whether the likeliest class is kept when none passes it.
        gate: Who chooses.

    Returns:
        Indices into the foreground classes, rising; empty for a photo of background only.

    Raises:
        ValueError: If the gate is `oracle` and there are no tags.
    """
    if gate == "oracle":
        if tags is None:
            raise ValueError("gate 'oracle' needs tags")
        return tuple(tags[0].nonzero()[:, 0].tolist())
    chosen = (prob[0] > predict.class_threshold).nonzero()[:, 0].tolist()
    if not chosen and predict.fallback:
        chosen = [int(prob[0].argmax())]
    return tuple(chosen)


@torch.no_grad()
def decide(
    photo: Tensor,
    cam: Tensor,
    keys: Sequence[int],
    predict: PredictConfig,
    refiner: Refiner | None = None,
    affinity: Tensor | None = None,
) -> Decision:
    """Cut a mask from evidence.

    Args:
        photo: (1, 3, H, W) uint8 RGB; the refiner sees it at half the size of `cam`.
        cam: (1, F, h, w) evidence in [0, 1].
        keys: Indices of the classes the mask may hold, as `choose_classes` returns them.
        predict: Score of background.
        refiner: Moves probabilities to the edges of the photo; None cuts the evidence itself.
        affinity: (1, L, L); spreads the evidence first.

    Source:
        methods specification R18 (3), (4); without refiner and affinity 2.3: background where the
        largest evidence is at most the score of background.
    """
    size = photo.shape[-2:]
    if not keys:
        return Decision(
            torch.full(size, BACKGROUND, dtype=torch.uint8, device=photo.device),
            torch.ones(1, 1, *size, device=photo.device),
        )
    picked = cam[:, list(keys)]
    if affinity is None and refiner is None:
        return _cut(upsample(picked, size), keys, predict.background)
    if affinity is not None:
        prob = _spread(picked, affinity)
    else:
        prob = key_probability(halved(picked), predict.background)
    if refiner is not None:
        half = _half_size(cam)
        prob = refiner(upsample(photo.float(), half), _resized_by_corners(prob, half))
    prob = upsample(prob, size)
    return Decision(_class_values(prob.argmax(dim=1), keys), prob)


def key_probability(picked: Tensor, background: float) -> Tensor:
    """Softmax over a constant background and the (N, K, h, w) evidence of present classes."""
    level = torch.full_like(picked[:, :1], background)
    return torch.cat([level, picked], dim=1).softmax(dim=1)  # (N, 1 + K, h, w)


def halved(maps: Tensor) -> Tensor:
    """Resize (N, C, h, w) maps to half size, corners aligned (methods specification 2.4)."""
    return _resized_by_corners(maps, _half_size(maps))


def working_photo(photo: Tensor, predict: PredictConfig) -> Tensor:
    """Resize an (N, 3, H, W) uint8 photo to `long_side_px`, and to no more than `max_side_px`."""
    height, width = photo.shape[-2:]
    side = predict.long_side_px or max(height, width)
    side = min(side, predict.max_side_px or side)
    if side == max(height, width):
        return photo
    factor = side / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    resized = F.interpolate(
        photo.float(), size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized.round().clamp(0, 255).to(torch.uint8)


def _cut(picked: Tensor, keys: Sequence[int], background: float) -> Decision:
    """Hard cut: background where the largest evidence does not exceed its score."""
    value, index = picked.max(dim=1)  # (1, H, W)
    index = torch.where(value > background, index + 1, 0)
    return Decision(_class_values(index, keys), key_probability(picked, background))


def _spread(picked: Tensor, affinity: Tensor) -> Tensor:
    """Propagate key probabilities over the affinity's grid; (1, 1 + K, gh, gw), sums to 1.

    Source:
        methods specification 2.7. Departs: sums are brought back to 1, since the 0.1 in the divisor
        of the walk takes a little away everywhere and a refiner takes probabilities.
    """
    grid = _grid(picked.shape[-2:], affinity.shape[-1])
    scores = key_probability(upsample(picked, grid), PROPAGATION_BACKGROUND)
    moved = propagate(scores, affinity.float(), PROPAGATION_RADIUS)
    return moved / moved.sum(dim=1, keepdim=True).clamp_min(1e-8)


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


def _probability(logit: Tensor) -> Tensor:
    """(1, F) probabilities from (V, F) logits of the V views of one photo."""
    return logit.float().mean(dim=0, keepdim=True).sigmoid()


def _repeated(tags: Tensor | None, views: int) -> Tensor | None:
    return None if tags is None else tags.expand(views, -1)


def _at_least(view: Tensor, side: int) -> Tensor:
    """Enlarge (N, 3, h, w) views whose shorter side is under `side`."""
    height, width = view.shape[-2:]
    return upsample(view, (max(height, side), max(width, side)))


def _half_size(maps: Tensor) -> tuple[int, int]:
    return max(1, maps.shape[-2] // 2), max(1, maps.shape[-1] // 2)


def _resized_by_corners(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
