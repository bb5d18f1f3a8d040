"""What a refiner promises: (image, probability) -> probability."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from tag2mask.config.schema import RefinerConfig


class Refiner(nn.Module, ABC):
    """Moves class probabilities towards the edges of the image; batched, no parameters to learn.

    A new refiner is one file in `refiners` with one direct subclass that implements `refine`.

    Example:
        >>> import torch
        >>> from tag2mask import plugins
        >>> kind = plugins.load("refiners", "par")
        >>> refiner = kind(kind.Config(iterations=5))
        >>> image = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
        >>> prob = torch.rand(1, 4, 32, 48).softmax(dim=1)  # of three classes and background
        >>> refiner(image, prob).shape
        torch.Size([1, 4, 32, 48])
    """

    Config: ClassVar[type[RefinerConfig]]
    at_full_size: ClassVar[bool] = False
    """Whether masks are refined at the image's own size; otherwise at half of it, as by PAR."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine probabilities of one or several stacks per image.

        Args:
            image: (N, 3, H, W) uint8 RGB, or float with values in [0, 255].
            probs: (N, C, H, W), or (N, S, C, H, W) for S stacks over the same image (the affinity of
                the image is then computed once). Non-negative, each stack sums to 1 over C.

        Returns:
            The shape of `probs`, sums to 1 over C.

        Raises:
            ValueError: If the sizes of image and prob differ.
        """
        if image.shape[0] != probs.shape[0] or image.shape[-2:] != probs.shape[-2:]:
            raise ValueError(
                f"image {tuple(image.shape)} and prob {tuple(probs.shape)} differ in batch or size"
            )
        if probs.ndim == 4:
            return self.refine(image, probs.unsqueeze(1)).squeeze(1)
        return self.refine(image, probs)

    @abstractmethod
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` by the (N, 3, H, W) `image`; sums to 1 over C."""
