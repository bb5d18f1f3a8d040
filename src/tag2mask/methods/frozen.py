"""The trained network of an earlier stage as a frozen part of a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from tag2mask.errors import RecipeError
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.protocol import ScaledViews
from tag2mask.models.base import Backbone
from tag2mask.models.scratch import shallow_copy
from tag2mask.types import DatasetView


class FrozenMethod(nn.Module):
    """A trained method without gradients that always stays in evaluation mode.

    As a submodule its weights are saved with the method that uses it.

    Args:
        method: Trained method of the earlier stage.
        backbone: Backbone of the method that uses it. If the two backbones expect different color
            statistics, images are normalized again for `method`.
    """

    def __init__(self, method: Method, backbone: Backbone) -> None:
        super().__init__()
        self.method = method.requires_grad_(False).eval()
        colors = (backbone.mean, backbone.std)
        own_colors = (method.backbone.mean, method.backbone.std)
        self._same_colors = all(map(torch.equal, own_colors, colors))
        # Buffers follow the method to its device; copying them in a step would wait for the device.
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", colors[0].clone(), persistent=False)
        self.register_buffer("_std", colors[1].clone(), persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Compute logits and CAM of (N, 3, H, W) images, normalized for the calling backbone."""
        with torch.no_grad():
            return self.method.compute_cam(self._renormalize(image), tags)

    def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
        """Compute logits and CAM of one image at all its scales, normalized likewise."""
        images = [self._renormalize(image) for image in views.images]
        with torch.no_grad():
            return self.method.compute_multi_scale_cam(views._replace(images=images))

    def class_logits(self, image: Tensor) -> Tensor:
        """Compute (N, F) class logits of images, normalized likewise."""
        with torch.no_grad():
            return self.method.class_logits(self._renormalize(image))

    def with_dataset(self, dataset: DatasetView) -> Self:
        """Return the same network with access to the images of a labeling run."""
        return shallow_copy(self, method=self.method.with_dataset(dataset))

    def _renormalize(self, image: Tensor) -> Tensor:
        if self._same_colors:
            return image
        return self.method.backbone.normalize(image * self._std + self._mean)


def require_frozen(classifier: FrozenMethod | None, name: str) -> FrozenMethod:
    """Return `classifier`, the network that method `name` starts from.

    Raises:
        RecipeError: If there was no earlier stage.
    """
    if classifier is None:
        raise RecipeError(
            f"method.name: {name} needs the CAM of a trained network; give its stage 'from: STAGE'"
        )
    return classifier
