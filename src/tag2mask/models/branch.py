"""A transformer branch on the last map of a convolutional network, and how both are fused.

The branch gives a network attention, which can feed an affinity head. Its blocks are those of MiT.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from tag2mask.config.schema import BackboneConfig
from tag2mask.models.backbones.mit import (
    BLOCK_EPS,
    EMBED_EPS,
    Block,
    init_weights,
    to_map,
    to_tokens,
)
from tag2mask.models.base import QueryKey

WIDTH = 256
"""Channels of the branch, unless it continues the map (fusion `branch`)."""
HEADS = 8
CAPTURED = 2
"""Blocks, counted from the last, whose queries and keys are captured."""

Fusion = Literal["sum", "norm", "concat", "branch"]


class BranchedConfig(BackboneConfig):
    """A convolutional network with a transformer branch on its last map."""

    blocks: Annotated[int, Field(ge=0, le=1024)] = 2
    """Transformer blocks; 0 gives the convolutional network alone, without attention."""
    fusion: Fusion = "sum"
    """Last map f4, from the network's map f and the branch b: sum: f + b; norm: LayerNorm of
    f + b, as a classifier reads tokens in a transformer; concat: LayerNorm of f beside b, so that a
    classifier adds the maps of two classifiers; branch: blocks on f itself and a LayerNorm, no
    summand beside them (wide networks: slow)."""


class Branch(nn.Module):
    """Transformer blocks on a map f, fused with it to f4.

    With `sum`, `norm` and `branch`, f4 is f or LayerNorm(f) at initialization, because the last
    linear layer of the branch (of every residual, with `branch`) starts at zero: pretrained
    features are unchanged at first.

    Args:
        width: Channels D of f.
        blocks: Number of transformer blocks, at least 1.
        fusion: See `BranchedConfig.fusion`.

    Source:
        Specification 2.1: a classifier reads the tokens of a transformer after their LayerNorm.
    """

    def __init__(self, width: int, blocks: int, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion
        inner = width if fusion == "branch" else WIDTH
        self.channels = width + WIDTH if fusion == "concat" else width
        self.attention_channels = HEADS * min(blocks, CAPTURED)
        self.head_dim = inner // HEADS
        self.down: nn.Module = nn.Identity()
        self.norm_in: nn.Module = nn.Identity()
        if fusion != "branch":
            self.down = nn.Linear(width, inner)
            self.norm_in = nn.LayerNorm(inner, eps=EMBED_EPS)
        self.blocks = nn.ModuleList(Block(inner, HEADS) for _ in range(blocks))
        self.norm_out = nn.LayerNorm(inner, eps=BLOCK_EPS)
        self.up: nn.Module = nn.Identity()
        if fusion in ("sum", "norm"):
            self.up = nn.Linear(inner, width)
        self.norm: nn.Module = nn.Identity()
        if fusion in ("norm", "concat"):
            self.norm = nn.LayerNorm(width, eps=BLOCK_EPS)
        self.apply(init_weights)
        self._start_at_map()

    def forward(self, maps: Tensor, capture: list[QueryKey] | None) -> Tensor:
        """Fuse an (N, D, H, W) map with its branch.

        Args:
            maps: f.
            capture: Gets the queries and keys of the last two blocks, unless it is None.

        Returns:
            f4, (N, channels, H, W).
        """
        grid = (maps.shape[2], maps.shape[3])
        skip = to_tokens(maps)
        tokens = self.norm_in(self.down(skip))
        for index, block in enumerate(self.blocks):
            last = index >= len(self.blocks) - CAPTURED
            tokens = block(tokens, grid, capture if last else None)
        tokens = self.up(self.norm_out(tokens))
        return to_map(self._fuse(skip, tokens), grid)

    def _fuse(self, skip: Tensor, tokens: Tensor) -> Tensor:
        """Fuse the tokens (N, L, D) of the map and (N, L, D_b) of the branch."""
        if self.fusion == "branch":
            return tokens
        if self.fusion == "concat":
            return torch.cat([self.norm(skip), tokens], dim=2)
        fused: Tensor = self.norm(skip + tokens)
        return fused

    def _start_at_map(self) -> None:
        """Zero the last linear layers of what is added to f."""
        if isinstance(self.up, nn.Linear):
            nn.init.zeros_(self.up.weight)
        if self.fusion == "branch":
            for block in cast(Iterable[Block], self.blocks):
                nn.init.zeros_(block.attn.proj.weight)
                nn.init.zeros_(block.mlp.fc2.weight)
