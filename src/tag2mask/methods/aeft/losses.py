"""Erasing maps, embeddings and the repulsion loss of adversarial erasing with triplets.

Source:
    AEFT, section 3.2; Specification 4.1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tag2mask.functional.cam import gather_classes, normalize_cam, upsample
from tag2mask.functional.pseudo_label import select_present_classes
from tag2mask.functional.reduction import rows_of_ranks, sum_over_ranks


class NegativePairs(NamedTuple):
    """For each image, another image of the full batch that shares no class with it."""

    image_index: Tensor
    """(N,) int64 index of the other image in the batch of all processes; arbitrary if there is
    none."""
    exists: Tensor
    """(N,) bool, whether there is one."""


class RepulsionLoss(NamedTuple):
    """The repulsion loss and the number of pairs in it."""

    loss: Tensor
    """Scalar, at least 0."""
    hard: Tensor
    """Scalar: number of pairs closer than the margin, over all processes."""


def erasing_map(
    cam: Tensor, tags: Tensor, max_tags: int, size: tuple[int, int], threshold: float
) -> Tensor:
    """Compute the factor of each pixel that erases confident regions of the present classes.

    Differentiable: the erased image passes its gradient to the map.

    Args:
        cam: (N, F, h, w), any sign.
        tags: (N, F) in {0, 1}.
        max_tags: At least the largest number of tags of one image; so many maps are resized.
        size: (H, W) of the images.
        threshold: In [0, 1]. Pixels with at least this activation are erased; larger erases less.

    Returns:
        (N, 1, H, W) in [0, threshold): the largest normalized CAM of the present classes if it is
        below the threshold, so that background is dimmed too, and 0 otherwise. 0 for images
        without tags.

    Source:
        AEFT, section 3.2; Specification 4.1: m = c where c < t_H, else 0.

    Example:
        >>> import torch
        >>> cam = torch.tensor([[[[0.0, 0.5, 1.0]]]])
        >>> erasing_map(cam, torch.ones(1, 1), 1, size=(1, 3), threshold=0.8).round(decimals=2)
        tensor([[[[0.0000, 0.5000, 0.0000]]]])
    """
    class_indices, is_present = select_present_classes(tags, max_tags)
    selected_cam = (
        normalize_cam(upsample(gather_classes(cam, class_indices).relu(), size))
        * is_present[:, :, None, None]
    )
    largest = selected_cam.amax(dim=1, keepdim=True)
    return largest * (largest < threshold)


def presence_embedding(attention: Tensor, tags: Tensor) -> Tensor:
    """Average the positive attention of present classes over space.

    Args:
        attention: (N, F, h, w), any sign.
        tags: (N, F) in {0, 1}.

    Returns:
        (N, F), at least 0; 0 for absent classes.

    Source:
        AEFT, section 3.2; Specification 4.1: e_A and e_P.
    """
    return attention.relu().mean(dim=(2, 3)) * tags


def region_embedding(
    attention: Tensor, tags: Tensor, region: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Average the attention of present classes, divided by its peak, over a region of each class.

    Args:
        attention: (N, F, h, w), any sign.
        tags: (N, F) in {0, 1}.
        region: (N, F, h, w) bool. None: all pixels.
        eps: Keeps the result of an all-zero map and of an empty region at 0.

    Returns:
        (N, F) in [-1, 1]; 0 for absent classes.

    Source:
        AEFT, section 3.2; Specification 4.1: e_AL over the pixels with a CAM below t_L, e_N over
        all pixels (the specification's "< 1.0" always holds for a normalized CAM).
    """
    scaled = attention / (attention.abs().amax(dim=(2, 3), keepdim=True) + eps)
    if region is None:
        return scaled.mean(dim=(2, 3)) * tags
    inside = region.to(scaled.dtype)
    return (scaled * inside).sum(dim=(2, 3)) / (inside.sum(dim=(2, 3)) + eps) * tags


def find_negatives(tags: Tensor) -> NegativePairs:
    """Draw, for each image, an image of the batch of all processes that shares no class with it.

    All such images are equally likely. Images without tags have no negatives and are none. The
    draw does not synchronize with the device.

    Args:
        tags: (N, F) in {0, 1}.

    Source:
        AEFT, section 3.2; Specification 6: one boolean product Z Z^T instead of a search image by
        image, which returned too few pairs if a batch had no such images.

    Example:
        >>> import torch
        >>> negatives = find_negatives(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        >>> negatives.exists.tolist(), negatives.image_index[:2].tolist()
        ([True, True, False], [1, 0])
    """
    others = rows_of_ranks(tags)
    disjoint = (tags @ others.T == 0) & tags.any(dim=1)[:, None] & others.any(dim=1)
    draws = torch.rand(disjoint.shape, device=tags.device).masked_fill(~disjoint, -1)
    return NegativePairs(draws.argmax(dim=1), disjoint.any(dim=1))


def repulsion(
    anchor: Tensor, negative: Tensor, exists: Tensor, margin: float, min_pairs: int
) -> RepulsionLoss:
    """Push anchors away from negatives that are closer than a margin.

    Args:
        anchor: (N, F).
        negative: (N, F), one for each anchor.
        exists: (N,) bool, False for pairs to leave out.
        margin: Squared distance above which a pair has no loss.
        min_pairs: The loss is 0 unless more pairs than this are closer.

    Source:
        AEFT, section 3.2; Specification 4.1: mean of margin - distance^2 over hard pairs, only if
        there are more than 4. Here the batch is that of all processes.
    """
    distance = (anchor - negative).square().sum(dim=1)
    hard = (exists & (distance < margin)).to(distance.dtype)
    count = sum_over_ranks(hard.sum())
    mean = sum_over_ranks(((margin - distance) * hard).sum()) / count.clamp_min(1)
    return RepulsionLoss(mean * (count > min_pairs), count)
