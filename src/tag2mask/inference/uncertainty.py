"""Estimate how unreliable a mask is from what inference computed anyway; no true mask is needed.

Four parts, each in [0, 1], 0 where the mask is reliable:

`views`       how much the masks of single scales and of the flipped image disagree
`refinement`  how much the refiner changes the mask
`pixels`      how undecided the probabilities of the pixels are
`tags`        how much the classifier contradicts the selected classes

The first three are 1 minus an IoU: of votes, of masks, and of probabilities. The entropy of the
pixels is no part: probabilities of class activation maps are all close to even, and their entropy
does not sort images.

The total is the weighted mean of the parts that exist, each scaled to its usual range; a network
without a refiner has no `refinement`. Ranges and weights come from images whose masks were not used
for any score (list `train` of VOC-Animals-6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.inference.postprocessing import (
    MaskOutput,
    PostProcessor,
    SelectedMaps,
    initial_probs,
)
from tag2mask.methods.protocol import NetworkOutput
from tag2mask.types import Uncertainty

EVEN = 0.5
"""Probability of a class that is as likely as not."""
USUAL = {
    "views": (0.2, 0.5),
    "refinement": (0.1, 0.4),
    "pixels": (0.55, 0.8),
    "tags": (0.0, 0.4),
}
"""Part -> the values that count as 0 and as 1: about the 10 % and 90 % quantiles."""
WEIGHTS = {"views": 1.0, "refinement": 0.25, "pixels": 1.0, "tags": 0.25}
"""Part -> its weight in the total; the refinement and the classifier say little about a mask."""
MAX_PIXELS = 65_536
"""Larger maps are sampled at every second, third, ... row and column."""


def network_parts(
    output: NetworkOutput,
    class_indices: Sequence[int],
    background: float,
    *,
    are_chosen: bool = True,
) -> dict[str, float]:
    """Return the parts that need the network's output: `views` and `tags`.

    Args:
        output: From `predict_multi_scale`.
        class_indices: Classes that the mask may contain.
        background: Background score beside a CAM.
        are_chosen: Whether tags or the classifier chose them. A decoder gets all classes; then the
            classifier's more probable classes count as chosen.
    """
    chosen = class_indices
    if not are_chosen:
        chosen = (output.probs[0] > EVEN).nonzero()[:, 0].tolist()
    parts = {"tags": class_contradiction(output.probs, chosen)}
    if class_indices and sum(len(view) for view in output.views) > 1:
        threshold = background if output.logits is None else EVEN
        votes = view_votes(output.views, class_indices, threshold)
        parts["views"] = 1 - expected_iou(votes, only_shown=output.logits is not None)
    return parts


def postprocess_with_parts(
    postprocessor: PostProcessor, image: Tensor, selected: SelectedMaps
) -> tuple[MaskOutput, dict[str, float]]:
    """Make a mask, and return the parts that need its maps: `refinement` and `pixels`.

    Args:
        postprocessor: Refines and thresholds.
        image: (1, 3, H, W) uint8 RGB.
        selected: From `select_maps`.
    """
    refined = postprocessor.refine(image, selected)
    return postprocessor.threshold(image, refined), refinement_parts(selected, refined)


def refinement_parts(selected: SelectedMaps, refined: SelectedMaps) -> dict[str, float]:
    """Return the parts that need the maps of a mask: `refinement` and `pixels`.

    Args:
        selected: From `select_maps`.
        refined: From `refine_maps`.
    """
    if not selected.class_indices or refined.kind == "confident":
        return {}
    size = (refined.maps.shape[-2], refined.maps.shape[-1])
    before = _sampled(initial_probs(selected, size))
    only_shown = selected.kind == "logits"
    parts = {"pixels": 1 - expected_iou(before, only_shown=only_shown)}
    if refined is not selected:
        parts["refinement"] = 1 - mask_iou(before, _sampled(refined.maps))
    return parts


def combine_parts(parts: Mapping[str, float]) -> Uncertainty:
    """Return the uncertainty that some parts give together; 0 without parts."""
    total = 0.0
    for name, value in parts.items():
        low, high = USUAL[name]
        total += WEIGHTS[name] * min(max((value - low) / (high - low), 0.0), 1.0)
    weight = sum(WEIGHTS[name] for name in parts)
    return Uncertainty(total / weight if parts else 0.0, dict(parts))


def view_votes(views: Sequence[Tensor], class_indices: Sequence[int], threshold: float) -> Tensor:
    """Return the share of views that put each pixel into background and each class.

    Args:
        views: Per scale (V, F, h, w) in [0, 1]; the second map is that of the flipped image if V
            is 2.
        class_indices: K classes that count.
        threshold: Value that a class must exceed to win against background.

    Returns:
        (1, 1 + K, h, w) at the grid of the first scale, background first; sums to 1.
    """
    size, upright = views[0].shape[-2:], []
    for view in views:
        maps = view[:, list(class_indices)]
        upright += [upsample(maps[:1], size), upsample(maps[1:].flip(-1), size)]
    value, index = torch.cat([one for one in upright if len(one)]).max(dim=1)
    labels = torch.where(value > threshold, index + 1, 0)
    votes = F.one_hot(labels, len(class_indices) + 1).float().mean(dim=0)
    return votes.permute(2, 0, 1)[None]


def expected_iou(probs: Tensor, *, only_shown: bool = False) -> float:
    """Return the IoU that the most probable mask would have if the probabilities were true.

    Args:
        probs: (1, 1 + K, h, w), background first, sums to 1.
        only_shown: Average over the classes with a pixel in the mask, not over all K.

    Returns:
        Mean over classes of expected intersection over expected union; 0 for a class without a
        pixel.
    """
    is_class = _one_hot(probs)
    inside = (probs * is_class).sum(dim=(0, 2, 3))[1:]
    union = torch.maximum(probs, is_class).sum(dim=(0, 2, 3))[1:]
    return _mean_ratio(inside, union, is_class, only_shown)


def mask_iou(before: Tensor, after: Tensor) -> float:
    """Return the mean IoU over classes of the masks of two (1, 1 + K, h, w) scores."""
    first, second = _one_hot(before), _one_hot(after)
    common = (first * second).sum(dim=(0, 2, 3))[1:]
    union = torch.maximum(first, second).sum(dim=(0, 2, 3))[1:]
    return _mean_ratio(common, union, torch.maximum(first, second), only_shown=True)


def class_contradiction(probs: Tensor, class_indices: Sequence[int]) -> float:
    """Return the largest difference of a (1, F) probability and 1 if selected, 0 if not."""
    chosen = torch.zeros_like(probs)
    chosen[:, list(class_indices)] = 1
    return float((probs - chosen).abs().max())


def _one_hot(scores: Tensor) -> Tensor:
    """Mark the largest of (1, 1 + K, h, w) scores of each pixel with 1, the others with 0."""
    return torch.zeros_like(scores).scatter_(1, scores.argmax(dim=1, keepdim=True), 1.0)


def _mean_ratio(part: Tensor, total: Tensor, is_class: Tensor, only_shown: bool) -> float:
    """Return the mean of (K,) ratios over all K classes, or over those that have a pixel."""
    ratio = part / total.clamp_min(1e-8)
    if only_shown:
        ratio = ratio[is_class.sum(dim=(0, 2, 3))[1:] > 0]
    return float(ratio.mean()) if len(ratio) else 0.0


def _sampled(maps: Tensor) -> Tensor:
    """Return at most `MAX_PIXELS` pixels of maps, on a regular grid."""
    pixels = maps.shape[-2] * maps.shape[-1]
    stride = max(1, math.ceil(math.sqrt(pixels / MAX_PIXELS)))
    return maps[..., ::stride, ::stride]
