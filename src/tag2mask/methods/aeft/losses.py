"""Anchor, positive and negative of adversarial erasing: what is erased, and how embeddings move."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tag2mask.functional.cam import gather_classes, normalize_cam, upsample
from tag2mask.functional.pseudo_label import select_present_classes
from tag2mask.functional.reduction import sum_over_ranks


class NegativePairs(NamedTuple):
    """For each image another one of the batch that shares no class with it."""

    place: Tensor
    """(N,) int64 place of the partner in the batch; meaningless where there is none."""
    found: Tensor
    """(N,) bool."""


class RepulsionLoss(NamedTuple):
    """How far too near the anchors are to their negatives."""

    loss: Tensor
    """Scalar, at least 0."""
    hard: Tensor
    """Scalar: number of pairs nearer than the margin, over all processes."""


def erasing_map(
    cam: Tensor, tags: Tensor, max_tags: int, size: tuple[int, int], threshold: float
) -> Tensor:
    """Weigh pixels so that what surely shows a class of the image is erased.

    Differentiable: the image under the map hands its gradient to the map.

    Args:
        cam: (N, F, h, w), any sign.
        tags: (N, F) in {0, 1}.
        max_tags: At least the largest number of tags of one image; only so many maps are enlarged.
        size: (H, W) of the images.
        threshold: In [0, 1]: pixels with evidence from here on are erased; larger erases less.

    Returns:
        (N, 1, H, W) in [0, threshold): the strongest normalized evidence below the threshold, so
        that background is dimmed as well; 0 where erased, and everywhere without tags.

    Source:
        AEFT, section 3.2 with Specification 4.1: m = c where c < t_H, else 0.
    """
    selected, present = select_present_classes(tags, max_tags)
    compute_cam = (
        normalize_cam(upsample(gather_classes(cam, selected).relu(), size))
        * present[:, :, None, None]
    )
    strongest = compute_cam.amax(dim=1, keepdim=True)
    return strongest * (strongest < threshold)


def presence_embedding(attention: Tensor, tags: Tensor) -> Tensor:
    """Average positive attention of present classes: (N, F, h, w) and (N, F) to (N, F).

    Source:
        AEFT, section 3.2 with Specification 4.1: e_A and e_P.
    """
    return attention.relu().mean(dim=(2, 3)) * tags


def region_embedding(
    attention: Tensor, tags: Tensor, region: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Average attention of present classes, scaled by its peak, over a region of each class.

    Args:
        attention: (N, F, h, w), any sign.
        tags: (N, F) in {0, 1}.
        region: (N, F, h, w) bool; None: everywhere.
        eps: Keeps an all-zero map and an empty region at 0.

    Returns:
        (N, F) in [-1, 1].

    Source:
        AEFT, section 3.2 with Specification 4.1: e_AL over the pixels with evidence below
        t_L, e_N over all (there "< 1.0", which the normalized evidence always is).
    """
    scaled = attention / (attention.abs().amax(dim=(2, 3), keepdim=True) + eps)
    if region is None:
        return scaled.mean(dim=(2, 3)) * tags
    inside = region.to(scaled.dtype)
    return (scaled * inside).sum(dim=(2, 3)) / (inside.sum(dim=(2, 3)) + eps) * tags


def find_negatives(tags: Tensor) -> NegativePairs:
    """Draw for each image one of those of the batch that share no class with it.

    All that qualify are equally likely. Nothing waits for the device. Images without tags take no
    part.

    Args:
        tags: (N, F) in {0, 1}.

    Source:
        AEFT, section 3.2; Specification 6: one boolean product Z Z^T in place of a search
        image by image, which was left short where a batch held no such pair.
    """
    tagged = tags.any(dim=1)
    unlike = (tags @ tags.T == 0) & tagged[:, None] & tagged
    lots = torch.rand(unlike.shape, device=tags.device).masked_fill(~unlike, -1)
    return NegativePairs(lots.argmax(dim=1), unlike.any(dim=1))


def repulsion(
    anchor: Tensor, negative: Tensor, found: Tensor, margin: float, least_pairs: int
) -> RepulsionLoss:
    """Push anchors away from negatives that are nearer than a margin.

    Args:
        anchor: (N, F).
        negative: (N, F), one for each anchor.
        found: (N,) bool: pairs that count at all.
        margin: Squared distance from which a pair is left alone.
        least_pairs: The loss is 0 unless more pairs than this are nearer.

    Source:
        AEFT, section 3.2 with Specification 4.1: margin - distance^2, mean over hard pairs,
        only if there are more than 4; here over the batch of all processes.
    """
    distance = (anchor - negative).square().sum(dim=1)
    hard = (found & (distance < margin)).to(distance.dtype)
    count = sum_over_ranks(hard.sum())
    mean = sum_over_ranks(((margin - distance) * hard).sum()) / count.clamp_min(1)
    return RepulsionLoss(mean * (count > least_pairs), count)
