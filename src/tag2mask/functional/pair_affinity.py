"""Labels and losses for learned affinities between neighboring pixels.

A pair is a pixel and its neighbor at one of K offsets (`half_disc_offsets`). Values of pairs are
(N, K, h, w) tensors, indexed by the pixel; they are 0 where the neighbor lies outside the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.functional.stencil import Offset, pair_windows
from tag2mask.types import BACKGROUND, IGNORE

EPS = 1e-5
"""Added to the argument of logarithms and to the number of pairs (Specification 4.3)."""


class PairLabels(NamedTuple):
    """Three disjoint sets of pairs, each (N, K, h, w) bool. Pairs with a 255 are in none."""

    background: Tensor
    """Both pixels are background."""
    foreground: Tensor
    """Both pixels have the same foreground class."""
    different: Tensor
    """The pixels have different labels."""


class PairLosses(NamedTuple):
    """Mean cross-entropy of each set of pairs, a scalar; 0 for an empty set."""

    background: Tensor
    foreground: Tensor
    different: Tensor

    def total(self) -> Tensor:
        """Weigh pairs with the same label by one half and pairs with different labels by the other.

        Source:
            PSA, Eq. 8; Specification 4.3.
        """
        return (self.background + self.foreground) / 4 + self.different / 2


def pair_labels(label: Tensor, offsets: Sequence[Offset]) -> PairLabels:
    """Compare the labels of all pairs.

    Args:
        label: (N, h, w) integers, 0 background, 255 ignore.
        offsets: The K neighbors.

    Example:
        >>> import torch
        >>> pairs = pair_labels(torch.tensor([[[0, 0, 2, 2]]]), offsets=[(0, 1)])
        >>> pairs.background[0, 0].int().tolist(), pairs.different[0, 0].int().tolist()
        ([[1, 0, 0, 0]], [[0, 1, 0, 0]])
    """
    num, height, width = label.shape
    empty = torch.zeros(num, len(offsets), height, width, dtype=torch.bool, device=label.device)
    pairs = PairLabels(empty, empty.clone(), empty.clone())
    for tap, offset in enumerate(offsets):
        pixel, neighbor = pair_windows(offset, (height, width))
        first, second = label[:, *pixel], label[:, *neighbor]
        labeled = (first != IGNORE) & (second != IGNORE)
        same = labeled & (first == second)
        pairs.background[:, tap, *pixel] = same & (first == BACKGROUND)
        pairs.foreground[:, tap, *pixel] = same & (first != BACKGROUND)
        pairs.different[:, tap, *pixel] = labeled & ~same
    return pairs


def pair_losses(affinity: Tensor, labels: PairLabels) -> PairLosses:
    """Compute the cross-entropy of affinities, averaged over each set of pairs.

    The means are over the batches of all processes.

    Args:
        affinity: (N, K, h, w) in [0, 1].
        labels: From `pair_labels`.

    Source:
        PSA, Eq. 5 to 8, and IRN, Eq. 6; Specification 4.3. Departs: every pair inside the crop
        counts; the released codes leave out pairs that start within the radius of the crop's edges.

    Example:
        >>> import torch
        >>> labels = pair_labels(torch.tensor([[[0, 0, 2, 2]]]), offsets=[(0, 1)])
        >>> affinity = torch.tensor([[[[0.5, 0.5, 1.0, 0.0]]]])
        >>> losses = pair_losses(affinity, labels)
        >>> [round(loss.item(), 2) for loss in losses], round(losses.total().item(), 2)
        ([0.69, -0.0, 0.69], 0.52)
    """
    same, different = -(affinity + EPS).log(), -(1 + EPS - affinity).log()
    return PairLosses(
        _masked_mean(same, labels.background),
        _masked_mean(same, labels.foreground),
        _masked_mean(different, labels.different),
    )


def _masked_mean(value: Tensor, mask: Tensor) -> Tensor:
    """Average (N, ...) values where the mask is True, over all processes; 0 for an empty mask."""
    return divide_by_count((value * mask).sum(), mask)


def divide_by_count(total: Tensor, mask: Tensor) -> Tensor:
    """Divide a sum by the number of True values in a mask, both added over all processes.

    Args:
        total: Scalar, the sum of the values where the mask is True.
        mask: Bool, any shape.

    Returns:
        Scalar; 0 for an empty mask.
    """
    return sum_over_ranks(total) / (sum_over_ranks(mask.sum().to(total.dtype)) + EPS)


def inside(offsets: Sequence[Offset], like: Tensor) -> Tensor:
    """Mark the pairs whose neighbor lies inside the map.

    Args:
        offsets: The K neighbors.
        like: (..., h, w) tensor that gives the size, type and device.

    Returns:
        (K, h, w) in {0, 1}.
    """
    size = like.shape[-2:]
    mask = like.new_zeros(len(offsets), *size)
    for tap, offset in enumerate(offsets):
        pixel, _ = pair_windows(offset, size)
        mask[tap, *pixel] = 1
    return mask


def downscale_label(label: Tensor, size: Sequence[int]) -> Tensor:
    """Shrink an (N, H, W) integer label to (N, h, w), taking the label at each pixel's center."""
    small = F.interpolate(label[:, None].float(), size=tuple(size), mode="nearest-exact")
    return small[:, 0].to(label.dtype)
