"""What a backbone promises: four maps and, where it has attention, what its blocks compare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tag2mask.config.schema import BackboneConfig

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class QueryKey(NamedTuple):
    """What one attention block compares; its raw logits are query . key."""

    query: Tensor
    """(N, heads, L, d), L cells of the f4 grid in raster order."""
    key: Tensor
    """(N, heads, L, d)."""

    @property
    def heads(self) -> int:
        """Heads of the block."""
        return self.query.shape[1]

    def logits(self) -> Tensor:
        """(N, heads, L, L) raw q k^T: unscaled, before softmax."""
        return self.query @ self.key.transpose(2, 3)

    def mixed(self, weight: Tensor) -> Tensor:
        """(N, L, L) sum of the logits of all heads, each times its (heads,) weight.

        One product over heads and channels together: no map per head is ever made.
        """
        query = self.query * weight.to(self.query.dtype)[:, None, None]
        return _joined(query) @ _joined(self.key).transpose(1, 2)

    def first(self, count: int) -> QueryKey:
        """Those of the first images of the batch."""
        return QueryKey(self.query[:count], self.key[:count])


def _joined(heads: Tensor) -> Tensor:
    """(N, heads, L, d) to (N, L, heads * d)."""
    return heads.transpose(1, 2).flatten(2)


class Features(NamedTuple):
    """What one forward pass of a backbone gives."""

    maps: tuple[Tensor, ...]
    """f1..f4, (N, D_i, ceil(H / s_i), ceil(W / s_i)), strides `Backbone.strides`."""
    attention: tuple[QueryKey, ...]
    """Queries and keys of the last two blocks; empty unless asked for."""

    def logits(self) -> list[Tensor]:
        """Raw q k^T of these blocks, each (N, heads, L, L)."""
        return [block.logits() for block in self.attention]


class Backbone(nn.Module, ABC):
    """A network from normalized images to feature maps; knows nothing of classes or objectives.

    A new backbone is one file in `models/backbones` with one direct subclass. Its constructor takes
    its Config, loads `config.weights` and records in `loaded` the names of the parameters that a
    checkpoint filled.
    """

    Config: ClassVar[type[BackboneConfig]]
    channels: tuple[int, int, int, int]
    """D_1..D_4."""
    strides: tuple[int, int, int, int] = (4, 8, 16, 16)
    """s_1..s_4, pixels per cell."""
    attention_channels: int = 0
    """Heads of the captured blocks in total (16 for two blocks of 8); 0 without attention."""
    head_dim: int = 1
    """Channels per head of the captured blocks; q k^T grows with its root."""
    loaded: frozenset[str] = frozenset()
    """Names (as in `named_parameters`) of parameters that a checkpoint filled."""
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
        """Turn (N, 3, H, W) uint8 RGB into the float input that the weights expect."""
        return (image.float() - self.mean) / self.std

    @abstractmethod
    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """Compute features of an (N, 3, H, W) normalized float image, any H, W >= 32.

        Args:
            image: As `normalize` returns it.
            attention: Also hand out the queries and keys of the last two blocks.
        """
