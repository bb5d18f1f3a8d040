"""The network of an earlier stage inside a method: asked, never trained, saved with it."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from tag2mask.errors import RecipeError
from tag2mask.methods.base import Evidence, Method
from tag2mask.models.base import Backbone


class Frozen(nn.Module):
    """A trained method that gives evidence: no gradient, always in evaluation mode.

    Args:
        method: The earlier stage's.
        backbone: That of the method which asks; its photos are normalised anew for the other where
            the two expect different colours.
    """

    def __init__(self, method: Method, backbone: Backbone) -> None:
        super().__init__()
        self.method = method.requires_grad_(False).eval()
        self._colours = (backbone.mean, backbone.std)
        own = (method.backbone.mean, method.backbone.std)
        self._same = all(map(torch.equal, own, self._colours))

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def evidence(self, image: Tensor, tags: Tensor | None = None) -> Evidence:
        """Ask for the evidence of (N, 3, H, W) photos, normalised for the backbone that asks."""
        if not self._same:
            mean, std = (value.to(image.device) for value in self._colours)
            image = self.method.backbone.normalise(image * std + mean)
        with torch.no_grad():
            return self.method.evidence(image, tags)


def ask(classifier: Frozen | None, name: str) -> Frozen:
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
