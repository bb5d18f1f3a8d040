"""RRM's reliable pseudo-labels: pixels at which refined scores and CAMs agree."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.functional.pseudo_label import Refine, SelectedClasses, with_power_background
from tag2mask.types import BACKGROUND, IGNORE

MIN_CAM = 0.1
"""Activations up to this never make a pixel reliable."""


def top_share(value: Tensor, member: Tensor, share: float) -> Tensor:
    """Mark the largest values of a set.

    Args:
        value: (N, K, L).
        member: (N, K, L) bool, the set in each row.
        share: Fraction of the set in [0, 1]. The number is rounded up, and ties are included.

    Returns:
        (N, K, L) bool, a subset of `member`. The device is not synchronized.

    Example:
        >>> import torch
        >>> value = torch.tensor([[[0.1, 0.9, 0.5, 0.7]]])
        >>> top_share(value, member=torch.tensor([[[True, False, True, True]]]), share=0.5)
        tensor([[[False, False,  True,  True]]])
    """
    order = value.masked_fill(~member, -torch.inf).sort(dim=2, descending=True).values
    # 7 % of 100 is 7, although 0.07 * 100 is slightly more in floating point.
    count = torch.ceil(member.sum(dim=2, keepdim=True).double() * share - 1e-6).long()
    smallest = order.gather(2, (count - 1).clamp_min(0))
    return member & (value >= smallest) & (count > 0)


def reliable_label(
    image: Tensor,
    selected_cam: Tensor,
    selected: SelectedClasses,
    valid: Tensor,
    refine: Refine,
    *,
    alphas: tuple[float, float] = (4.0, 32.0),
    confidence: float = 0.8,
    share: float = 0.4,
    background: float = 0.8,
) -> Tensor:
    """Make training targets at the pixels where refined scores and CAMs agree.

    The CAMs are refined with two background scores, (1 - max)^alpha. A foreground pixel needs its
    class to win with the first alpha and some class to win with the second; a background pixel
    needs background to win with the second. The winning refined score must be at least
    `confidence`. In addition, a foreground pixel must be among the top `share` of the pixels that
    the unrefined CAMs assign to its class (with the second alpha), and at a background pixel the
    second background score must exceed `background`.

    Args:
        image: (N, 3, H, W) uint8 RGB.
        selected_cam: (N, K, H, W) CAMs of the classes of `selected`, in [0, 1].
        selected: From `select_present_classes`; its padding classes never win.
        valid: (N, H, W) bool, False on crop padding, which is ignored.
        refine: A refiner, applied at the size of the image.
        alphas: Background exponents, the smaller first.
        confidence: Minimum refined score, in [0, 1].
        share: Fraction, in [0, 1], of the pixels that the CAMs assign to a class.
        background: Threshold of (1 - max)^(second alpha) for background, in [0, 1].

    Returns:
        (N, H, W) int64 in 0..F and 255.

    Source:
        RRM, section "Reliable region mining"; Specification 4.7. Both leave open what the share
        refers to, whose score is compared and which background must exceed 0.8. This follows the
        released configuration, which also excludes activations up to 0.1. Departs: there a pixel
        is kept if it is in the top share of any class, here of its own class.
    """
    selected_cam = selected_cam * selected.is_present[:, :, None, None]
    probs = refine(image, with_power_background(selected_cam, alphas))
    score, winner = probs.max(dim=2)  # (N, 2, H, W)
    confident = (score >= confidence).unbind(1)
    peak, own = selected_cam.max(dim=1)
    rest = (1 - peak) ** alphas[1]
    channel = torch.arange(selected_cam.shape[1], device=selected_cam.device)[:, None, None]
    assigned = (own[:, None] == channel) & ((peak > rest) & (peak > MIN_CAM) & valid)[:, None]
    top = top_share(selected_cam.flatten(2), assigned.flatten(2), share).view_as(assigned)
    reliable = (
        top & (winner[:, :1] == channel + 1) & (winner[:, 1:] != BACKGROUND) & confident[0][:, None]
    )
    label = torch.where(reliable, (selected.class_indices + 1)[:, :, None, None], 0).sum(dim=1)
    is_background = (winner[:, 1] == BACKGROUND) & confident[1] & (rest > background) & valid
    return torch.where((label > 0) | is_background, label, IGNORE)
