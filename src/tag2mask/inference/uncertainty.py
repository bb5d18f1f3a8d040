"""Estimate how unreliable a mask is from what inference computed anyway; no true mask is needed.

Four parts, each in [0, 1], 0 where the mask is reliable:

`views`       how much the maps of scales and of the flipped image differ from their mean
`refinement`  how much the refiner changes the maps
`entropy`     how undecided the probabilities of the object's pixels are
`tags`        how much the classifier contradicts the selected classes

The total is the mean of the parts that exist: a network without a refiner has no `refinement`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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
MAX_PIXELS = 65_536
"""Larger maps are sampled at every second, third, ... row and column."""


def network_parts(
    output: NetworkOutput, class_indices: Sequence[int], *, are_chosen: bool = True
) -> dict[str, float]:
    """Return the parts that need the network's output: `views` and `tags`.

    Args:
        output: From `predict_multi_scale`.
        class_indices: Classes that the mask may contain.
        are_chosen: Whether tags or the classifier chose them. A decoder gets all classes; then the
            classifier's more probable classes count as chosen.
    """
    chosen = class_indices
    if not are_chosen:
        chosen = (output.probs[0] > EVEN).nonzero()[:, 0].tolist()
    parts = {"tags": class_contradiction(output.probs, chosen)}
    if class_indices and sum(len(view) for view in output.views) > 1:
        parts["views"] = view_disagreement(output.views, class_indices)
    return parts


def postprocess_with_parts(
    postprocessor: PostProcessor, image: Tensor, selected: SelectedMaps
) -> tuple[MaskOutput, dict[str, float]]:
    """Make a mask, and return the parts that need its maps: `refinement` and `entropy`.

    Args:
        postprocessor: Refines and thresholds.
        image: (1, 3, H, W) uint8 RGB.
        selected: From `select_maps`.
    """
    refined = postprocessor.refine(image, selected)
    output = postprocessor.threshold(image, refined)
    if not selected.class_indices:
        return output, {}
    probs = _sampled(output.probs if refined.kind in ("cam", "logits") else refined.maps)
    if refined.kind == "confident":
        return output, {"entropy": object_entropy(probs[:, 0])}
    probs = probs / probs.sum(dim=1, keepdim=True).clamp_min(1e-8)
    parts = {"entropy": object_entropy(probs)}
    if refined is not selected:
        before = initial_probs(selected, (probs.shape[-2], probs.shape[-1]))
        parts["refinement"] = map_change(before, probs)
    return output, parts


def combine_parts(parts: Mapping[str, float]) -> Uncertainty:
    """Return the uncertainty that some parts give together: their mean."""
    total = sum(parts.values()) / len(parts) if parts else 0.0
    return Uncertainty(min(max(total, 0.0), 1.0), dict(parts))


def view_disagreement(views: Sequence[Tensor], class_indices: Sequence[int]) -> float:
    """Return 1 minus the mean soft IoU of each view's maps and their mean over all views.

    Args:
        views: Per scale (V, F, h, w) in [0, 1]; the second half is that of the flipped image if V
            is 2.
        class_indices: Classes that count.
    """
    size, upright = views[0].shape[-2:], []
    for view in views:
        maps = view[:, list(class_indices)]
        upright += [upsample(maps[:1], size), upsample(maps[1:].flip(-1), size)]
    maps = torch.cat(upright)
    mean = maps.mean(dim=0, keepdim=True)
    return 1 - float(soft_iou(maps, mean.expand_as(maps)).mean())


def map_change(before: Tensor, after: Tensor) -> float:
    """Return 1 minus the soft IoU of the foreground of two (1, 1 + K, h, w) probabilities."""
    return 1 - float(soft_iou(before[:, 1:], after[:, 1:]).mean())


def soft_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute (N,) sums of the smaller over sums of the larger values of (N, K, h, w) maps.

    Maps that are 0 everywhere have a soft IoU of 1.
    """
    smaller = torch.minimum(first, second).flatten(1).sum(dim=1)
    larger = torch.maximum(first, second).flatten(1).sum(dim=1)
    return torch.where(larger > 0, smaller / larger.clamp_min(1e-8), 1.0)


def object_entropy(probs: Tensor) -> float:
    """Return the mean entropy of the pixels in which a class is most probable, over its maximum.

    Args:
        probs: (1, 1 + K, h, w) probabilities, background first, K at least 1.

    Returns:
        In [0, 1]; 1 if no pixel shows a class although K were selected.
    """
    shown = probs.argmax(dim=1) > 0
    if not shown.any():
        return 1.0
    entropy = -(probs * probs.clamp_min(1e-8).log()).sum(dim=1) / math.log(probs.shape[1])
    return float(entropy[shown].mean())


def class_contradiction(probs: Tensor, class_indices: Sequence[int]) -> float:
    """Return the largest difference of a (1, F) probability and 1 if selected, 0 if not."""
    chosen = torch.zeros_like(probs)
    chosen[:, list(class_indices)] = 1
    return float((probs - chosen).abs().max())


def _sampled(maps: Tensor) -> Tensor:
    """Return at most `MAX_PIXELS` pixels of maps, on a regular grid."""
    pixels = maps.shape[-2] * maps.shape[-1]
    stride = max(1, math.ceil(math.sqrt(pixels / MAX_PIXELS)))
    return maps[..., ::stride, ::stride]
