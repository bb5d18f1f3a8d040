"""The pixel loss on images with a true mask, which is added to the losses of any method.

This loss is ours; no paper of the methods here has it. It is the balanced cross-entropy of
`functional.segmentation` at the maps that a method makes masks from:

1. With a decoder, at its logits.
2. Without, at the class activation map (CAM) as inference reads it: each class map divided by its
   own peak, beside a constant background score b. The logits of a pixel are

       z_0 = b / T,    z_f = cam_f / max(peak(cam_f), 1) / T    for f tagged or in the mask

   with b = `predict.background` of the recipe and T = 0.1. Classes that are neither tagged nor in
   the mask do not take part, because inference does not select them. Dividing by the peak lets the
   loss shape a map without lowering its mean, which the classification loss raises. A peak below 1
   is not raised to 1, so that an empty map
   keeps finite gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tag2mask.functional.cam import upsample
from tag2mask.functional.segmentation import segmentation_loss
from tag2mask.types import Batch

if TYPE_CHECKING:  # `base` imports this module
    from tag2mask.methods.base import Method

TEMPERATURE = 0.1
"""T. A map 0.1 above the background score gives odds of e."""
MIN_PEAK = 1.0
"""Smallest divisor of a raw class map, in units of its logits."""
EXCLUDED = -1e4
"""Logit of a class that does not take part; its probability is 0, and sums stay finite."""


def true_mask_loss(method: Method, batch: Batch) -> Tensor:
    """Compute the cross-entropy between a method's maps and the true masks of a batch.

    The network runs once more, on the rows with a mask only; other rows contribute nothing.

    Args:
        method: In training; its decoder or its CAM is trained.
        batch: `masked_rows` names at least one row.

    Returns:
        Scalar: half the mean over background plus half the mean over foreground (AFA, section 3.5).
    """
    assert batch.mask is not None
    # Stacked, because indexing with a list would wait for the device.
    image, tags, mask = (
        torch.stack([values[row] for row in batch.masked_rows])
        for values in (batch.image, batch.tags, batch.mask)
    )
    image = method.backbone.normalize(image)
    logits = method.segmentation(image)
    if logits is None:
        cam = method.compute_cam(image).cam.float()
        cam = upsample(cam, mask.shape[-2:])
        logits = cam_logits(cam, tags, mask, method.background_score)
    return segmentation_loss(upsample(logits.float(), mask.shape[-2:]), mask)


def cam_logits(cam: Tensor, tags: Tensor, mask: Tensor, background: float) -> Tensor:
    """Turn raw class activation maps into pixel logits with background; see the module.

    Args:
        cam: (N, F, H, W), any range.
        tags: (N, F) in {0, 1}.
        mask: (N, H, W) int64 in 0..F or 255; its classes take part even if they lack a tag.
        background: Background score b in [0, 1].

    Returns:
        (N, 1 + F, H, W), background first.
    """
    peak = cam.amax(dim=(2, 3), keepdim=True).clamp_min(MIN_PEAK)
    values = torch.arange(1, cam.shape[1] + 1, device=mask.device)
    shown = (mask.flatten(1)[:, :, None] == values).any(dim=1)  # (N, F)
    absent = (~shown & (tags == 0))[:, :, None, None]
    scores = (cam / peak / TEMPERATURE).masked_fill(absent, EXCLUDED)
    constant = torch.full_like(scores[:, :1], background / TEMPERATURE)
    return torch.cat([constant, scores], dim=1)
