"""MobileNetV1 with a transformer stage beside its last map: real training on two CPU cores.

All MobileNetV1 layers (arXiv 1704.04861; modules and weights of `transformers`) run with the last
stride removed. To their map f a transformer branch is added, f4 = f + up(blocks(down(f))), whose
`up` starts at zero: pretrained features and their locality are untouched at the start, while the
branch's raw attention logits can feed an affinity head.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MobileNetV1Config, MobileNetV1Model

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
from tag2mask.models.folding import folded
from tag2mask.models.weights import fill, license, read_config, read_tensors

PIXEL_MIDDLE = (127.5, 127.5, 127.5)
BRANCH_WIDTH = 256
HEADS = 8
ENDS = (2, 4, 10)
"""Separable layers, of 13 counted from 0, whose outputs are f1, f2, f3."""
UNSTRIDED, DILATED = 11, 12
"""The separable layer that loses its stride; the next one looks twice as far to make up for it."""


class HybridConfig(BackboneConfig):
    """MobileNetV1 with a transformer stage beside its last map."""

    name: str = "hybrid"
    """Backbone: a file of the folder `models/backbones`."""
    depth_multiplier: Annotated[float, Field(gt=0, le=2)] = 0.75
    """Width of MobileNetV1 as a factor; the weights must have been trained with the same."""
    blocks: Annotated[int, Field(ge=0)] = 2
    """Transformer blocks beside the last map; 0: the plain network, without attention."""


class Branch(nn.Module):
    """down, transformer blocks, up; adds nothing until `up` has learned something.

    Args:
        width: Channels of the map that comes in and goes out.
        blocks: Number of transformer blocks.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, BRANCH_WIDTH)
        self.norm_in = nn.LayerNorm(BRANCH_WIDTH, eps=EMBED_EPS)
        self.blocks = nn.ModuleList(Block(BRANCH_WIDTH, HEADS) for _ in range(blocks))
        self.norm_out = nn.LayerNorm(BRANCH_WIDTH, eps=BLOCK_EPS)
        self.up = nn.Linear(BRANCH_WIDTH, width)
        self.apply(init_weights)
        nn.init.zeros_(self.up.weight)

    def forward(self, maps: Tensor, capture: list[QueryKey] | None) -> Tensor:
        """(N, D, H, W) to the same; the last two blocks' queries and keys go to `capture`."""
        grid = (maps.shape[2], maps.shape[3])
        tokens = self.norm_in(self.down(to_tokens(maps)))
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, grid, capture if index >= len(self.blocks) - 2 else None)
        return to_map(self.up(self.norm_out(tokens)), grid)


class Hybrid(Backbone):
    """MobileNetV1 at stride 16 and, beside its last map, a transformer branch.

    BatchNorm statistics of loaded weights never change, not even in training mode; from scratch
    they are trained as usual.
    """

    Config = HybridConfig

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(PIXEL_MIDDLE, PIXEL_MIDDLE)
        self.cnn: nn.Module = MobileNetV1Model(
            MobileNetV1Config(depth_multiplier=config.depth_multiplier), add_pooling_layer=False
        )
        self._conv_norm(2 * UNSTRIDED)[0].stride = (1, 1)
        self._conv_norm(2 * DILATED)[0].dilation = (2, 2)
        f1, f2, f3, f4 = (
            self._conv_norm(2 * index + 1)[0].out_channels for index in (*ENDS, DILATED)
        )
        self.channels = (f1, f2, f3, f4)
        self.branch = Branch(f4, config.blocks) if config.blocks else None
        if self.branch is not None:
            self.attention_channels = HEADS * min(config.blocks, 2)
            self.head_dim = BRANCH_WIDTH // HEADS
        if config.weights not in (None, "none"):
            self._load(config.weights, config.depth_multiplier)

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """See `Backbone.forward`."""
        out = image.contiguous(memory_format=torch.channels_last)
        out = conv_norm_relu(out, *_conv_norm(self.cnn.conv_stem))
        maps: list[Tensor] = []
        for index in range(DILATED + 1):
            out = conv_norm_relu(out, *self._conv_norm(2 * index))
            out = conv_norm_relu(out, *self._conv_norm(2 * index + 1))
            if index in ENDS:
                maps.append(out)
        capture: list[QueryKey] = []
        if self.branch is not None:
            out = out + self.branch(out, capture if attention else None)
        return Features((*maps, out), tuple(capture))

    def train(self, mode: bool = True) -> Hybrid:
        """Switch modes; BatchNorms with loaded statistics stay in evaluation mode."""
        super().train(mode)
        if self.loaded:
            self.cnn.eval()
        return self

    def _conv_norm(self, index: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """Convolution and BatchNorm of one layer: depthwise at even indices, 1x1 at odd ones."""
        return _conv_norm(cast(nn.ModuleList, self.cnn.layer)[index])

    def _load(self, weights: str, depth_multiplier: float) -> None:
        """Fill the MobileNetV1 part."""
        given = read_config(weights).get("depth_multiplier", depth_multiplier)
        if given != depth_multiplier:
            raise WeightsError(
                f"{weights}: has depth_multiplier {given}, the recipe {depth_multiplier}; "
                f"set backbone.depth_multiplier to {given}"
            )
        tensors = {
            name.removeprefix("mobilenet_v1."): tensor
            for name, tensor in read_tensors(weights).items()
            if not name.startswith("classifier.")
        }
        self.loaded = frozenset(f"cnn.{name}" for name in fill(self.cnn, tensors, weights))
        self.weights_license = license(weights)
        self.cnn.eval()


def _conv_norm(layer: Any) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """The two parts of a `MobileNetV1ConvLayer`."""
    return layer.convolution, layer.normalization


def conv_norm_relu(maps: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run one convolution of MobileNetV1 with its BatchNorm and ReLU6.

    Where the BatchNorm's statistics are fixed it is folded into the convolution: one pass over
    memory in place of two, and exact gradients to weight, gamma and beta.

    Args:
        maps: (N, D_in, H, W).
        convolution: Without bias.
        norm: In evaluation mode it is folded.

    Returns:
        (N, D_out, ceil(H / stride), ceil(W / stride)) in [0, 6].
    """
    maps, padding = same_padding(maps, convolution)
    weight, bias = convolution.weight, None
    if not norm.training:
        weight, bias = folded(weight, norm)
    out = F.conv2d(
        maps,
        weight,
        bias,
        convolution.stride,
        padding,
        convolution.dilation,
        convolution.groups,
    )
    # In place is safe: neither the convolution's nor the BatchNorm's backward reads its own output.
    return F.relu6(norm(out) if norm.training else out, inplace=True)


def same_padding(maps: Tensor, convolution: nn.Conv2d) -> tuple[Tensor, tuple[int, int]]:
    """Pad as TensorFlow's SAME does: sizes become size / stride rounded up, a surplus goes last.

    Args:
        maps: (N, D, H, W).
        convolution: Gives kernel, stride and dilation.

    Returns:
        The maps, and the symmetric (vertical, horizontal) padding the convolution is to add itself;
        they are copied only where the padding is lopsided (stride 2 on an even size).
    """
    totals = []
    for axis in (0, 1):
        stride, size = convolution.stride[axis], maps.shape[2 + axis]
        reach = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1) + 1
        totals.append(max(reach - (size % stride or stride), 0))
    vertical, horizontal = totals
    if vertical % 2 == 0 and horizontal % 2 == 0:
        return maps, (vertical // 2, horizontal // 2)
    top, left = vertical // 2, horizontal // 2
    return F.pad(maps, (left, horizontal - left, top, vertical - top)), (0, 0)
