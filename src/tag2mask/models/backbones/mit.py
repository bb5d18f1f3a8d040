"""Mix Transformer (MiT) encoders b0..b5 with last stride 16 and access to their attention.

SegFormer (arXiv 2105.15203), section 3.1, with the strides (4, 2, 2, 1) of AFA (arXiv 2203.02664).
Parameter names are those of the official ImageNet weights. Tokens are (N, L, D) in raster order.
Viewed as (N, D, H, W), they are a channels-last map, so convolutions and linear layers alternate
without copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.config.schema import BackboneConfig
from tag2mask.models.base import Backbone, Features, QueryKey
from tag2mask.models.weights import fill, license, official_mit_names, read_tensors

BLOCK_EPS = 1e-6
EMBED_EPS = 1e-5
STRIDES = (4, 2, 2, 1)
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
MLP_RATIO = 4


class Variant(NamedTuple):
    """Widths and depths of one MiT size."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


VARIANTS = {
    "b0": Variant((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": Variant((64, 128, 320, 512), (2, 2, 2, 2)),
    "b2": Variant((64, 128, 320, 512), (3, 4, 6, 3)),
    "b3": Variant((64, 128, 320, 512), (3, 4, 18, 3)),
    "b4": Variant((64, 128, 320, 512), (3, 8, 27, 3)),
    "b5": Variant((64, 128, 320, 512), (3, 6, 40, 3)),
}


class MiTConfig(BackboneConfig):
    """Mix Transformer of SegFormer."""

    name: str = "mit"
    """Backbone: a file of the folder `models/backbones`."""
    variant: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b1"
    """Size: b0 has 3.3 M parameters, b1 13, b2 24, b3 44, b4 61, b5 81."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Probability of skipping a branch of the last block in training; lower for earlier blocks."""


def to_tokens(maps: Tensor) -> Tensor:
    """View an (N, D, H, W) map as (N, H * W, D) tokens; no copy if the map is channels-last."""
    return maps.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """View (N, L, D) tokens as a channels-last (N, D, H, W) map."""
    return tokens.transpose(1, 2).view(tokens.shape[0], tokens.shape[2], *grid)


class Attention(nn.Module):
    """Multi-head self-attention with keys and values at a `reduction` times coarser size."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.sr: nn.Conv2d | None = None
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width, eps=EMBED_EPS)

    def forward(
        self, tokens: Tensor, grid: tuple[int, int], capture: list[QueryKey] | None
    ) -> Tensor:
        """Attend over (N, L, D) tokens; append queries and keys to `capture` if it is a list."""
        query = self.q(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, L, d)
        if self.sr is not None:
            tokens = self.norm(to_tokens(self.sr(to_map(tokens, grid))))
        pair = self.kv(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        key, value = pair.unbind(0)  # (N, heads, L_kv, d) each
        if capture is not None:
            capture.append(QueryKey(query, key))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return cast(Tensor, self.proj(mixed.transpose(1, 2).flatten(2)))


class DepthwiseConv(nn.Module):
    """3 x 3 depthwise convolution over tokens, which replaces position embeddings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Convolve (N, L, D) tokens of a map of size `grid`."""
        return to_tokens(self.dwconv(to_map(tokens, grid)))


class MixFFN(nn.Module):
    """Linear layer, 3 x 3 depthwise convolution, GELU, linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.dwconv = DepthwiseConv(MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Transform (N, L, D) tokens of a map of size `grid`."""
        return cast(Tensor, self.fc2(F.gelu(self.dwconv(self.fc1(tokens), grid))))


class Block(nn.Module):
    """Residual attention and MixFFN, each after a LayerNorm.

    Args:
        width: Channels D.
        heads: Attention heads; a divisor of `width`.
        reduction: Side of the squares of tokens that share a key; 1: every token has its own.
        drop_path: Probability, per image, of skipping a branch in training.
    """

    def __init__(self, width: int, heads: int, reduction: int = 1, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=BLOCK_EPS)
        self.attn = Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=BLOCK_EPS)
        self.mlp = MixFFN(width)

    def forward(
        self, tokens: Tensor, grid: tuple[int, int], capture: list[QueryKey] | None = None
    ) -> Tensor:
        """Transform (N, L, D) tokens; append queries and keys to `capture` if it is a list."""
        tokens = self._add_branch(
            tokens,
            lambda part: self.attn(self.norm1(part), grid, capture),
            all_images=capture is not None,
        )
        return self._add_branch(tokens, lambda part: self.mlp(self.norm2(part), grid))

    def _add_branch(
        self, tokens: Tensor, branch: Callable[[Tensor], Tensor], *, all_images: bool = False
    ) -> Tensor:
        """Add a branch; in training, skip it for random images and scale it for the others.

        Skipped images are not computed, except if `all_images` (the attention of every image is
        needed) or if all are skipped (the parameters need a gradient on every rank).
        """
        if self.drop_path == 0.0 or not self.training:
            return tokens + branch(tokens)
        gain = 1.0 / (1.0 - self.drop_path)
        keep = torch.rand(len(tokens)) >= self.drop_path  # on the CPU, where it can be read at once
        if keep.all():
            return torch.add(tokens, branch(tokens), alpha=gain)
        if all_images or not keep.any():
            kept = _without_waiting(keep, tokens.device).to(tokens)[:, None, None]
            return torch.addcmul(tokens, branch(tokens).to(tokens), kept, value=gain)
        index = _without_waiting(keep.nonzero()[:, 0], tokens.device)
        return tokens.index_add(0, index, branch(tokens[index]).to(tokens), alpha=gain)


def _without_waiting(values: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device; from memory that is not pinned, the host would wait for it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


class PatchEmbedding(nn.Module):
    """Overlapping strided convolution and LayerNorm, from a map to coarser tokens."""

    def __init__(self, in_width: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_width, width, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width, eps=EMBED_EPS)

    def forward(self, maps: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn (N, D_in, H, W) into (N, L, D) tokens and their grid (h, w), sizes rounded up."""
        out = self.proj(maps)
        return self.norm(to_tokens(out)), (out.shape[2], out.shape[3])


def init_weights(module: nn.Module) -> None:
    """Initialize one module like MiT; for `Module.apply`.

    Source:
        Specification 1: linear layers from a truncated normal with std 0.02, norms with 1 and 0,
        convolutions from N(0, 2 / fan_out).
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


class MiT(Backbone):
    """Mix Transformer encoder; returns queries and keys of the last two blocks on request."""

    Config = MiTConfig

    def __init__(self, config: MiTConfig) -> None:
        super().__init__()
        widths, depths = VARIANTS[config.variant]
        self.channels = widths
        self.attention_channels = 2 * HEADS[3]
        self.head_dim = widths[3] // HEADS[3]
        last = sum(depths) - 1
        rates = [config.drop_path * index / last for index in range(last + 1)]
        for stage in range(4):
            self._add_stage(stage, widths, rates[sum(depths[:stage]) : sum(depths[: stage + 1])])
        self.apply(init_weights)
        if config.weights not in (None, "none"):
            tensors = official_mit_names(read_tensors(config.weights))
            self.loaded = fill(self, tensors, config.weights)
            self.weights_license = license(config.weights)
        # Kernels in the layout of the maps save conversions, 2 % of a training step.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _add_stage(self, stage: int, widths: Sequence[int], rates: Sequence[float]) -> None:
        """Add patch embedding, blocks and norm under their official names, which count from 1."""
        width = widths[stage]
        kernel, in_width = (7, 3) if stage == 0 else (3, widths[stage - 1])
        embed = PatchEmbedding(in_width, width, kernel, STRIDES[stage])
        blocks = [Block(width, HEADS[stage], REDUCTIONS[stage], rate) for rate in rates]
        self.add_module(f"patch_embed{stage + 1}", embed)
        self.add_module(f"block{stage + 1}", nn.ModuleList(blocks))
        self.add_module(f"norm{stage + 1}", nn.LayerNorm(width, eps=BLOCK_EPS))

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """See `Backbone.forward`."""
        maps: list[Tensor] = []
        capture: list[QueryKey] = []
        out = image.contiguous(memory_format=torch.channels_last)
        for stage in range(1, 5):
            tokens, grid = self.get_submodule(f"patch_embed{stage}")(out)
            blocks = cast(nn.ModuleList, self.get_submodule(f"block{stage}"))
            for index, block in enumerate(blocks):
                captures = attention and stage == 4 and index >= len(blocks) - 2
                tokens = block(tokens, grid, capture if captures else None)
            out = to_map(self.get_submodule(f"norm{stage}")(tokens), grid)
            maps.append(out)
        return Features(tuple(maps), tuple(capture))
