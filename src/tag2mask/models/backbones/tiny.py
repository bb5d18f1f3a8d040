"""A small network that learns from scratch in minutes: convolutions, and transformer blocks beside.

Seven convolutions down to stride 8 see texture and keep its place; two blocks of the Mix
Transformer beside the last map start at zero, as in `hybrid`, and weigh 0.3; their raw
attention logits can feed an affinity head. Meant for small pictures, first runs and tests; there
are no pretrained weights.
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
"""Share of the blocks' path. Trained from scratch at full strength, mixing over the whole picture
lets any cell speak for any class, and plain class maps spread over the clutter."""


class TinyConfig(BackboneConfig):
    """A small network for training from scratch."""

    name: str = "tiny"
    """Backbone: a file of the folder `models/backbones`."""
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 32
    """Channels of the first layers; the last has four times as many."""


class Tiny(Backbone):
    """Convolutions down to stride 8 and, beside the last map, two transformer blocks."""

    Config = TinyConfig
    strides = (4, 8, 8, 8)

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        if config.weights not in (None, "none"):
            raise WeightsError(
                f"{config.weights}: backbone 'tiny' has no pretrained weights; "
                "leave out backbone.weights or choose another backbone"
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
    """3x3 convolution, BatchNorm, ReLU; sizes are divided by the stride and rounded up."""
    return nn.Sequential(
        nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
