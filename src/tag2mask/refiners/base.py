"""What a refiner promises: (image, probability) -> probability."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from tag2mask.recipe import RefinerConfig


class Refiner(nn.Module, ABC):
    """Moves class probabilities towards the edges of the photo; batched, no parameters to learn.

    A new refiner is one file in `refiners` with one direct subclass that implements `refine`.

    Example:
        >>> import torch
        >>> from tag2mask import plugins
        >>> kind = plugins.load("refiners", "par")
        >>> refiner = kind(kind.Config(iterations=5))
        >>> photo = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
        >>> prob = torch.rand(1, 4, 32, 48).softmax(dim=1)  # of three classes and background
        >>> refiner(photo, prob).shape
        torch.Size([1, 4, 32, 48])
    """

    Config: ClassVar[type[RefinerConfig]]
    at_full_size: ClassVar[bool] = False
    """Whether masks are refined at the photo's own size; otherwise at half of it, as by PAR."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, image: Tensor, prob: Tensor) -> Tensor:
        """Refine probabilities of one or several stacks per photo.

        Args:
            image: (N, 3, H, W) uint8 RGB, or float with values in [0, 255].
            prob: (N, C, H, W), or (N, S, C, H, W) for S stacks over the same photo (the affinity of
                the photo is then computed once). Non-negative, each stack sums to 1 over C.

        Returns:
            The shape of `prob`, sums to 1 over C.

        Raises:
            ValueError: If the sizes of image and prob differ.
        """
        if image.shape[0] != prob.shape[0] or image.shape[-2:] != prob.shape[-2:]:
            raise ValueError(
                f"image {tuple(image.shape)} and prob {tuple(prob.shape)} differ in batch or size"
            )
        if prob.ndim == 4:
            return self.refine(image, prob.unsqueeze(1)).squeeze(1)
        return self.refine(image, prob)

    @abstractmethod
    def refine(self, image: Tensor, prob: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `prob` by the (N, 3, H, W) `image`; sums to 1 over C."""
