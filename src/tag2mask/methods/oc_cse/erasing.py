"""Class-specific erasing: one present class is painted out where the network claims to see it."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.functional.cam import upsample


def choose_present_class(tags: Tensor) -> Tensor:
    """Draw one present class per image, each with the same chance, without waiting for the device.

    Args:
        tags: (N, F) float in {0, 1}.

    Returns:
        (N, F) float, 1 at the chosen class; all 0 for an image without tags. Drawn from torch's
        generator of the device of `tags`.
    """
    lot = tags + torch.rand_like(tags)  # present classes draw from [1, 2), absent ones from [0, 1)
    winner = lot.argmax(dim=1, keepdim=True)
    return torch.zeros_like(tags).scatter_(1, winner, 1.0) * tags


def erasing_mask(
    cam: Tensor, chosen: Tensor, size: tuple[int, int] | torch.Size, eps: float = 1e-5
) -> Tensor:
    """Turn the evidence for the chosen class of each image into a soft mask.

    Differentiable throughout, the peak included: the mask is how the loss on the erased image
    reaches the network that made the evidence.

    Args:
        cam: (N, F, h, w) raw signed evidence.
        chosen: (N, F) in {0, 1}, at most one 1 per image.
        size: (H, W) of the image.
        eps: Keeps a batch without any evidence at 0.

    Returns:
        (N, 1, H, W) in [0, 1); 1 is erased.

    Source:
        OC-CSE with Specification 4.8: m = ReLU(up CAM_t) / max, one peak for the whole
        batch, so that faint evidence erases faintly. The batch is that of one process.
    """
    selected_cam = (cam * chosen[:, :, None, None]).sum(dim=1, keepdim=True)  # (N, 1, h, w)
    mask = upsample(selected_cam, size).relu()
    return mask / (mask.amax() + eps)
