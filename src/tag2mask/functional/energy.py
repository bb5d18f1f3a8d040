"""Dense energy: an unsupervised loss that gives nearby pixels of similar color the same class.

Source:
    Tang et al.: On regularized losses for weakly-supervised CNN segmentation, ECCV 2018. Settings
    of RRM and AFA: Specification 4.7.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.lattice import bilateral_filter
from tag2mask.types import IGNORE

ENERGY_SCALE = 1e-7
"""The published factor that scales the energy to the range of other losses."""


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
    """Sum, over pairs of similar pixels, the negative probability that they share a class.

    The sum is computed at a smaller size. The weight of a labeled pixel is 1 minus its largest
    probability; that of other pixels is 1.

    Args:
        probs: (N, C, h, w) class probabilities, any size.
        image: (N, 3, H, W) uint8 RGB, or float in [0, 255].
        label: (N, H, W) int64 training target, 255 for pixels without a label.
        valid: (N, H, W) bool, False on crop padding, which is excluded.
        sxy: Width of the bilateral kernel in pixels of `image`.
        srgb: Width of the bilateral kernel in gray levels.
        scale: Working size as a fraction of the image size.

    Returns:
        Scalar float32, at most 0: ENERGY_SCALE times the mean over images.

    Raises:
        ValueError: If image, label and valid differ in batch or size.

    Source:
        Specification 4.7: E = -(1 / N) sum_c S_c (K S_c) G, with K the bilateral kernel, S_c the
        probabilities of class c and G the weights of the pixels.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
        >>> label = torch.full((1, 16, 16), 255)
        >>> valid = torch.ones(1, 16, 16, dtype=torch.bool)
        >>> certain = torch.zeros(1, 2, 16, 16)
        >>> certain[:, 0] = 1
        >>> undecided = torch.full((1, 2, 16, 16), 0.5)
        >>> energies = [dense_energy_loss(p, image, label, valid) for p in (certain, undecided)]
        >>> bool(energies[0] < energies[1])
        True
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
    weight = (roi - small.detach().amax(dim=1, keepdim=True)).clamp_min(0)
    weight = weight.masked_fill(_nearest(label[:, None], size) == IGNORE, 1)
    energy: Tensor = _DenseEnergy.apply(  # type: ignore[no-untyped-call]  # torch has no types here
        small, _nearest(image, size), weight, roi, sxy * scale, srgb
    )
    return ENERGY_SCALE * energy


def _nearest(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink (N, C, H, W) maps of any dtype by nearest neighbors, as `mode="nearest"` does."""
    rows, columns = (
        torch.arange(new, device=values.device) * old // new
        for new, old in zip(size, values.shape[-2:], strict=True)
    )
    return values[:, :, rows[:, None], columns]


class _DenseEnergy(torch.autograd.Function):
    """The energy and its gradient -2 K S G / N; the weights G are constants."""

    @staticmethod
    def forward(
        ctx: Any, probs: Tensor, image: Tensor, weight: Tensor, roi: Tensor, sxy: float, srgb: float
    ) -> Tensor:
        """Filter (N, C, h, w) `probs` inside the (N, 1, h, w) `roi`, times `weight`."""
        with torch.autocast(probs.device.type, enabled=False):
            inside = probs.detach() * roi
            filtered = bilateral_filter(inside, image, sxy, srgb).mul_(weight)  # K S G
            energy = -(inside * filtered).sum() / len(probs)
            ctx.save_for_backward(filtered.mul_(-2 * roi / len(probs)))
        return energy

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of `probs`; the other inputs have none."""
        (gradient,) = ctx.saved_tensors
        return upstream[0] * gradient, None, None, None, None, None
