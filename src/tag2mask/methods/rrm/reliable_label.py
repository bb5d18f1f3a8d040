"""Labels from evidence only where it can be relied on: sure of itself, and strong for its class."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.functional.pseudo_label import Refine, SelectedClasses, with_power_background
from tag2mask.types import BACKGROUND, IGNORE

LEAST = 0.1
"""Evidence that makes no pixel reliable."""


def top_share(value: Tensor, member: Tensor, share: float) -> Tensor:
    """Find the pixels whose value is among the largest of a set.

    Args:
        value: (N, K, L).
        member: (N, K, L) bool, the set of each row.
        share: Of the set, in [0, 1]; its size is rounded up, and equals of the last are let in.

    Returns:
        (N, K, L) bool, never outside the set. Nothing waits for the device.
    """
    order = value.masked_fill(~member, -torch.inf).sort(dim=2, descending=True).values
    # 7 % of 100 is 7, though 0.07 * 100 is a little more.
    count = torch.ceil(member.sum(dim=2, keepdim=True).double() * share - 1e-6).long()
    least = order.gather(2, (count - 1).clamp_min(0))
    return member & (value >= least) & (count > 0)


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
    """Make training targets of the pixels that refined scores and evidence both vouch for.

    Foreground must win against much background (first alpha), background against what is left of
    it by the second. The winner's refined score must reach `confidence`. The evidence must agree:
    where it says by itself, beside the second background, that a pixel is of a class, the strongest
    `share` of those pixels is reliable; background is where that background exceeds `background`.

    Args:
        image: (N, 3, H, W) uint8 RGB.
        selected_cam: (N, K, H, W) evidence of the classes of `selected`, in [0, 1].
        selected: From `select_present_classes`; classes that only fill it up never win.
        valid: (N, H, W) bool, False on crop padding, which is ignored.
        refine: A refiner; works at the size of the image here.
        alphas: Exponents of background, the smaller first.
        confidence: Least refined score, in [0, 1].
        share: Of the pixels that evidence gives to a class, in [0, 1].
        background: What (1 - strongest evidence)^(second alpha) must exceed, in [0, 1].

    Returns:
        (N, H, W) int64 in 0..F and 255.

    Source:
        RRM, section "Reliable region mining" with Specification 4.7. Both are silent on
        what the share is of, whose score counts, and which background must exceed 0.8; decided as
        in its released configuration, which also leaves out evidence of 0.1 and less. There a pixel
        is kept if it is strong for any class, here if it is for its own.
    """
    chosen = selected_cam * selected.present[:, :, None, None]
    probs = refine(image, with_power_background(chosen, alphas))
    score, winner = probs.max(dim=2)  # (N, 2, H, W)
    confident = (score >= confidence).unbind(1)
    peak, own = chosen.max(dim=1)
    rest = (1 - peak) ** alphas[1]
    place = torch.arange(selected_cam.shape[1], device=selected_cam.device)[:, None, None]
    claimed = (own[:, None] == place) & ((peak > rest) & (peak > LEAST) & valid)[:, None]
    strong = top_share(chosen.flatten(2), claimed.flatten(2), share).view_as(claimed)
    kept = (
        strong
        & (winner[:, :1] == place + 1)
        & (winner[:, 1:] != BACKGROUND)
        & confident[0][:, None]
    )
    label = torch.where(kept, (selected.classes + 1)[:, :, None, None], 0).sum(dim=1)
    empty = (winner[:, 1] == BACKGROUND) & confident[1] & (rest > background) & valid
    return torch.where((label > 0) | empty, label, IGNORE)
