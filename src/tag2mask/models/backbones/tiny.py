"""A small network that trains from scratch in minutes: convolutions and two transformer blocks.

Seven convolutions down to stride 8 extract local texture. Two Mix Transformer blocks are added to
the last map with factor 0.3, starting at zero as in `hybrid`. Their attention logits can feed an
affinity head. The network is for small images, first runs and tests; it has no pretrained weights.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from tag2mask.config.schema import BackboneConfig
from tag2mask.errors import WeightsError
from tag2mask.models.backbones.mit import (
    BLOCK_EPS,
    EMBED_EPS,
    Block,
    init_weights,
    to_map,
    to_tokens,
)
from tag2mask.models.base import Backbone, Features, QueryKey

HEADS = 4
BLOCKS = 2
MIX = 0.3
"""Factor of the transformer path. At full strength, training from scratch mixes features over the
complete image, and CAMs leak into the background."""


class TinyConfig(BackboneConfig):
    """A small network for training from scratch."""

    name: str = "tiny"
    """Backbone: a file of the folder `models/backbones`."""
    width: Annotated[int, Field(ge=8, le=8192, multiple_of=8)] = 32
    """Channels of the first layers; the last layer has four times as many."""


class Tiny(Backbone):
    """Convolutions down to stride 8 with two transformer blocks parallel to the last map."""

    Config = TinyConfig
    strides = (4, 8, 8, 8)

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        if config.weights not in (None, "none"):
            raise WeightsError(
                f"{config.weights}: backbone 'tiny' has no pretrained weights; "
                "remove backbone.weights or use another backbone"
            )
        width = config.width
        last = 4 * width
        self.channels = (2 * width, 3 * width, last, last)
        self.attention_channels = BLOCKS * HEADS
        self.head_dim = last // HEADS
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    _layer(3, width, 2), _layer(width, width), _layer(width, 2 * width, 2)
                ),
                nn.Sequential(_layer(2 * width, 2 * width), _layer(2 * width, 3 * width, 2)),
                nn.Sequential(_layer(3 * width, 3 * width), _layer(3 * width, last)),
            ]
        )
        self.norm_in = nn.LayerNorm(last, eps=EMBED_EPS)
        self.blocks = nn.ModuleList(Block(last, HEADS) for _ in range(BLOCKS))
        self.norm_out = nn.LayerNorm(last, eps=BLOCK_EPS)
        self.up = nn.Linear(last, last)
        self.apply(init_weights)
        nn.init.zeros_(self.up.weight)

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """See `Backbone.forward`."""
        out = image.contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = []
        for stage in self.stages:
            out = stage(out)
            maps.append(out)
        grid = (out.shape[2], out.shape[3])
        capture: list[QueryKey] = []
        tokens = self.norm_in(to_tokens(out))
        for block in self.blocks:
            tokens = block(tokens, grid, capture if attention else None)
        out = out + MIX * to_map(self.up(self.norm_out(tokens)), grid)
        return Features((*maps, out), tuple(capture))


def _layer(in_width: int, width: int, stride: int = 1) -> nn.Sequential:
    """Build 3 x 3 convolution, BatchNorm and ReLU; sizes become size / stride, rounded up."""
    return nn.Sequential(
        nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
