"""The contract of backbones: four feature maps, and the queries and keys of attention blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tag2mask.config.schema import BackboneConfig

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class QueryKey(NamedTuple):
    """Queries and keys of one attention block."""

    query: Tensor
    """(N, heads, L, d) for the L positions of f4 in raster order."""
    key: Tensor
    """(N, heads, L, d)."""

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.query.shape[1]

    def logits(self) -> Tensor:
        """Compute the raw attention logits q k^T (N, heads, L, L), unscaled, before the softmax."""
        return self.query @ self.key.transpose(2, 3)

    def mixed(self, weight: Tensor) -> Tensor:
        """Sum the logits of all heads, each times its (heads,) weight, to (N, L, L).

        One product covers heads and channels, so that no map per head exists.
        """
        query = self.query * weight.to(self.query.dtype)[:, None, None]
        return _join_heads(query) @ _join_heads(self.key).transpose(1, 2)

    def first(self, count: int) -> QueryKey:
        """Return the queries and keys of the first `count` images of the batch."""
        return QueryKey(self.query[:count], self.key[:count])


def _join_heads(heads: Tensor) -> Tensor:
    """Reshape (N, heads, L, d) to (N, L, heads * d)."""
    return heads.transpose(1, 2).flatten(2)


class Features(NamedTuple):
    """The output of a backbone."""

    maps: tuple[Tensor, ...]
    """f1..f4, (N, D_i, ceil(H / s_i), ceil(W / s_i)) with strides s_i = `Backbone.strides`."""
    attention: tuple[QueryKey, ...]
    """Queries and keys of the last two blocks; empty unless requested."""

    def logits(self) -> list[Tensor]:
        """Compute the raw attention logits of each block, (N, heads, L, L)."""
        return [block.logits() for block in self.attention]


class Backbone(nn.Module, ABC):
    """A network from normalized images to feature maps, independent of classes and losses.

    To add a backbone, write one file in `models/backbones` with one direct subclass. Its
    constructor takes its Config, loads `config.weights` and stores the names of the loaded
    parameters in `loaded`.
    """

    Config: ClassVar[type[BackboneConfig]]
    channels: tuple[int, int, int, int]
    """D_1..D_4."""
    strides: tuple[int, int, int, int] = (4, 8, 16, 16)
    """s_1..s_4 in image pixels."""
    attention_channels: int = 0
    """Total number of heads of the captured blocks (16 for two blocks of 8), or 0."""
    head_dim: int = 1
    """Channels per head of the captured blocks; q k^T grows with its square root."""
    loaded: frozenset[str] = frozenset()
    """Names, as in `named_parameters`, of the parameters loaded from a checkpoint."""
    weights_license: str = "none: trained from scratch"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        """Normalize (N, 3, H, W) uint8 RGB to the float input that the weights expect."""
        return (image.float() - self.mean) / self.std

    @abstractmethod
    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """Compute features of normalized images.

        Args:
            image: (N, 3, H, W) float from `normalize`, H and W at least 32.
            attention: Also return the queries and keys of the last two blocks.
        """
