"""Dense energy: neighbors that look alike should share their class, as a loss without labels.

Source:
    Tang et al.: On regularized losses for weakly-supervised CNN segmentation, ECCV 2018; settings
    of RRM and AFA, Specification 4.7.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.lattice import bilateral_filter
from tag2mask.types import IGNORE

ENERGY_SCALE = 1e-7
"""The published factor that brings the energy near the other losses; weights come on top of it."""


def dense_energy_loss(
    probs: Tensor,
    image: Tensor,
    label: Tensor,
    valid: Tensor,
    *,
    sxy: float = 100.0,
    srgb: float = 15.0,
    scale: float = 0.5,
) -> Tensor:
    """Sum, over pairs of like pixels, how sure they are to share a class; lower is better.

    Worked out at a smaller size. Pixels that have a label count the less the surer they are.

    Args:
        probs: (N, C, h, w) class probabilities, of any size.
        image: (N, 3, H, W) uint8 RGB, or float in [0, 255].
        label: (N, H, W) int64 training target; 255 is no label.
        valid: (N, H, W) bool, False on crop padding, which neither gives nor takes.
        sxy: Width of the kernel in pixels of `image`.
        srgb: Width of the kernel in gray levels.
        scale: Size of the working maps as a share of `image`.

    Returns:
        Scalar float32, at most 0, times ENERGY_SCALE; the mean over images.

    Raises:
        ValueError: If image, label and valid differ in batch or size.

    Source:
        Specification 4.7: E = -(1 / N) sum_c S_c (K S_c) G.
    """
    if image.shape[-2:] != label.shape[-2:] or label.shape != valid.shape:
        raise ValueError(
            f"image {tuple(image.shape)}, label {tuple(label.shape)} and valid "
            f"{tuple(valid.shape)} differ in batch or size"
        )
    height, width = image.shape[-2:]
    size = (max(1, int(height * scale)), max(1, int(width * scale)))
    small = F.interpolate(probs.float(), size=size, mode="bilinear", align_corners=False)
    roi = _nearest(valid[:, None], size).float()
    gate = (roi - small.detach().amax(dim=1, keepdim=True)).clamp_min(0)
    gate = gate.masked_fill(_nearest(label[:, None], size) == IGNORE, 1)
    energy: Tensor = _DenseEnergy.apply(  # type: ignore[no-untyped-call]  # torch has no types here
        small, _nearest(image, size), gate, roi, sxy * scale, srgb
    )
    return ENERGY_SCALE * energy


def _nearest(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink (N, C, H, W) maps of any type by picking pixels, as `mode="nearest"` does."""
    rows, columns = (
        torch.arange(new, device=values.device) * old // new
        for new, old in zip(size, values.shape[-2:], strict=True)
    )
    return values[:, :, rows[:, None], columns]


class _DenseEnergy(torch.autograd.Function):
    """The energy and its gradient -2 K S G / N, the gate G taken as constant."""

    @staticmethod
    def forward(
        ctx: Any, probs: Tensor, image: Tensor, gate: Tensor, roi: Tensor, sxy: float, srgb: float
    ) -> Tensor:
        """Filter (N, C, h, w) `probs` inside the (N, 1, h, w) `roi`, weighted by the `gate`."""
        with torch.autocast(probs.device.type, enabled=False):
            inside = probs.detach() * roi
            pull = bilateral_filter(inside, image, sxy, srgb).mul_(gate)  # K S G
            energy = -(inside * pull).sum() / len(probs)
            ctx.save_for_backward(pull.mul_(-2 * roi / len(probs)))
        return energy

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradient of `probs`; nothing else has one."""
        (gradient,) = ctx.saved_tensors
        return upstream[0] * gradient, None, None, None, None, None
