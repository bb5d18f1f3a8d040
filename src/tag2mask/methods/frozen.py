"""The network of an earlier stage inside a method: asked, never trained, saved with it."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from tag2mask.errors import RecipeError
from tag2mask.methods.base import CamOutput, Method
from tag2mask.models.base import Backbone


class FrozenMethod(nn.Module):
    """A trained method that gives evidence: no gradient, always in evaluation mode.

    Args:
        method: The earlier stage's.
        backbone: That of the method which asks; its images are normalized anew for the other where
            the two expect different colors.
    """

    def __init__(self, method: Method, backbone: Backbone) -> None:
        super().__init__()
        self.method = method.requires_grad_(False).eval()
        self._colors = (backbone.mean, backbone.std)
        own = (method.backbone.mean, method.backbone.std)
        self._same = all(map(torch.equal, own, self._colors))

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Ask for the evidence of (N, 3, H, W) images, normalized for the backbone that asks."""
        if not self._same:
            mean, std = (value.to(image.device) for value in self._colors)
            image = self.method.backbone.normalize(image * std + mean)
        with torch.no_grad():
            return self.method.compute_cam(image, tags)


def ask(classifier: FrozenMethod | None, name: str) -> FrozenMethod:
    """Return the earlier network of method `name`.

    Raises:
        RecipeError: If there was no earlier stage.
    """
    if classifier is None:
        raise RecipeError(
            f"method.name: {name} needs the evidence of a trained network; give its stage "
            "'from: STAGE'"
        )
    return classifier
