"""Describe a complete image by one vector, the mean of the backbone's last feature map."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.functional.precision import label_autocast
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.methods.protocol import MIN_SIDE_PX, enlarge_to, resize_to_working_size
from tag2mask.types import Image

LONG_SIDE_PX = 320
"""Long side at which the backbone sees the image; its classes need no fine detail."""


@torch.no_grad()
def image_features(segmenter: Segmenter, image: Image) -> Tensor:
    """Compute the (D,) mean of the last feature map, on the CPU.

    Args:
        segmenter: Its backbone sees the image.
        image: (H, W, 3) uint8 RGB, any size.
    """
    config = segmenter.config.model_copy(update={"long_side_px": LONG_SIDE_PX})
    backbone = segmenter.method.backbone
    tensor = resize_to_working_size(image_tensor(image).to(segmenter.device), config)
    view = enlarge_to(backbone.normalize(tensor), MIN_SIDE_PX)
    with label_autocast(config.precision, segmenter.device.type):
        features = backbone(view).maps[-1]
    pooled: Tensor = features[0].float().mean(dim=(1, 2)).cpu()
    return pooled
