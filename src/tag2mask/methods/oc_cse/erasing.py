"""Class-specific erasing: the CAM of one present class becomes a soft erasing mask."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.functional.cam import upsample
from tag2mask.functional.reduction import max_over_ranks


def draw_present_class(tags: Tensor) -> Tensor:
    """Draw one present class per image with equal probabilities.

    The draw uses torch's generator of the device of `tags` and does not synchronize with it.

    Args:
        tags: (N, F) float in {0, 1}.

    Returns:
        (N, F) float, 1 at the drawn class; all 0 for an image without tags.
    """
    draws = tags + torch.rand_like(tags)  # in [1, 2) for present classes, in [0, 1) for others
    winner = draws.argmax(dim=1, keepdim=True)
    return torch.zeros_like(tags).scatter_(1, winner, 1.0) * tags


def erasing_mask(
    cam: Tensor, one_hot: Tensor, size: tuple[int, int] | torch.Size, eps: float = 1e-5
) -> Tensor:
    """Turn the CAM of one class of each image into a soft erasing mask.

    Gradients also flow through the peak: the loss on the erased image trains the network that
    computed the CAM.

    Args:
        cam: (N, F, h, w) raw signed CAM.
        one_hot: (N, F) in {0, 1}, at most one 1 per image.
        size: (H, W) of the image.
        eps: Keeps the mask at 0 if no activation of the batch is positive.

    Returns:
        (N, 1, H, W) in [0, 1); 1 erases completely.

    Source:
        OC-CSE; Specification 4.8: m = ReLU(up CAM_t) / max, with one maximum for the batch of all
        processes, so that weak activations erase little.

    Example:
        >>> import torch
        >>> cam = torch.tensor([[[[4.0, 1.0]], [[-1.0, 8.0]]]])
        >>> erasing_mask(cam, one_hot=torch.tensor([[1.0, 0.0]]), size=(1, 2)).round(decimals=2)
        tensor([[[[1.0000, 0.2500]]]])
    """
    selected_cam = (cam * one_hot[:, :, None, None]).sum(dim=1, keepdim=True)  # (N, 1, h, w)
    mask = upsample(selected_cam, size).relu()
    return mask / (max_over_ranks(mask.amax()) + eps)
