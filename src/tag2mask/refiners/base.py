"""The contract of refiners: (image, probs) -> probs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from tag2mask.config.schema import RefinerConfig


class Refiner(nn.Module, ABC):
    """Align class probabilities with the edges of the image, without learned parameters.

    To add a refiner, write one file in `refiners` with one direct subclass that implements
    `refine`.

    Example:
        >>> import torch
        >>> from tag2mask import plugins
        >>> kind = plugins.load("refiners", "par")
        >>> refiner = kind(kind.Config(iterations=5))
        >>> image = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
        >>> probs = torch.rand(1, 4, 32, 48).softmax(dim=1)  # background and three classes
        >>> refiner(image, probs).shape
        torch.Size([1, 4, 32, 48])
    """

    Config: ClassVar[type[RefinerConfig]]
    at_full_size: ClassVar[bool] = False
    """Whether inference refines at full image size, rather than at half of it (the default)."""
    exportable: ClassVar[bool] = False
    """Whether it consists of torch operations that `torch.export` can record."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine one or several sets of probabilities per image.

        Args:
            image: (N, 3, H, W) uint8 RGB, or float in [0, 255].
            probs: (N, C, H, W), or (N, S, C, H, W) for S sets of probabilities per image, which
                share one computation of the image's affinity. Non-negative, sums to 1 over C.

        Returns:
            The shape of `probs`, sums to 1 over C.

        Raises:
            ValueError: If image and probs differ in batch or size.
        """
        if image.shape[0] != probs.shape[0] or image.shape[-2:] != probs.shape[-2:]:
            raise ValueError(
                f"image {tuple(image.shape)} and probs {tuple(probs.shape)} differ in batch or size"
            )
        if probs.ndim == 4:
            return self.refine(image, probs.unsqueeze(1)).squeeze(1)
        return self.refine(image, probs)

    @abstractmethod
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` with the (N, 3, H, W) `image`; sums to 1 over C."""
