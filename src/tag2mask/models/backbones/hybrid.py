"""MobileNetV1 with a parallel transformer branch, small enough to train on two CPU cores.

All layers of MobileNetV1 (arXiv 1704.04861; modules and weights of `transformers`) run with the
last stride removed. A transformer branch is added to their map f: f4 = f + up(blocks(down(f))).
The weights of `up` start at zero, so that the pretrained features are unchanged at first. The
branch's attention logits can feed an affinity head.
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
"""Separable layers, 0 to 12, whose outputs are f1, f2, f3."""
UNSTRIDED, DILATED = 11, 12
"""The separable layer without its stride, and the next one, which is dilated to compensate."""


class HybridConfig(BackboneConfig):
    """MobileNetV1 with a parallel transformer branch."""

    name: str = "hybrid"
    """Backbone: a file of the folder `models/backbones`."""
    depth_multiplier: Annotated[float, Field(gt=0, le=2)] = 0.75
    """Width factor of MobileNetV1; must match the weights."""
    blocks: Annotated[int, Field(ge=0)] = 2
    """Transformer blocks; 0 gives MobileNetV1 alone, without attention."""


class Branch(nn.Module):
    """Linear layer, transformer blocks, linear layer; the output is 0 at initialization.

    Args:
        width: Channels of the input and the output.
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
        """Transform (N, D, H, W); append queries and keys of the last two blocks to `capture`."""
        grid = (maps.shape[2], maps.shape[3])
        tokens = self.norm_in(self.down(to_tokens(maps)))
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, grid, capture if index >= len(self.blocks) - 2 else None)
        return to_map(self.up(self.norm_out(tokens)), grid)


class Hybrid(Backbone):
    """MobileNetV1 at stride 16 with a transformer branch parallel to its last map.

    BatchNorm statistics of loaded weights never change, even in training mode. From scratch, they
    are trained as usual.
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
        """Set the mode; BatchNorms with loaded statistics stay in evaluation mode."""
        super().train(mode)
        if self.loaded:
            self.cnn.eval()
        return self

    def _conv_norm(self, index: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """Return convolution and BatchNorm of a layer: depthwise for even indices, else 1 x 1."""
        return _conv_norm(cast(nn.ModuleList, self.cnn.layer)[index])

    def _load(self, weights: str, depth_multiplier: float) -> None:
        """Load the weights of MobileNetV1."""
        published = read_config(weights).get("depth_multiplier", depth_multiplier)
        if published != depth_multiplier:
            raise WeightsError(
                f"{weights}: has depth_multiplier {published}, but the recipe has "
                f"{depth_multiplier}; set backbone.depth_multiplier to {published}"
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
    """Return the two parts of a `MobileNetV1ConvLayer`."""
    return layer.convolution, layer.normalization


def conv_norm_relu(maps: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Run one convolution of MobileNetV1 with its BatchNorm and ReLU6.

    A BatchNorm in evaluation mode is folded into the convolution, which saves a pass over memory
    and keeps the gradients of weight, gamma and beta exact.

    Args:
        maps: (N, D_in, H, W).
        convolution: Without bias.
        norm: Its BatchNorm.

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
    # In-place is safe: the backward passes of both layers do not read their outputs.
    return F.relu6(norm(out) if norm.training else out, inplace=True)


def same_padding(maps: Tensor, convolution: nn.Conv2d) -> tuple[Tensor, tuple[int, int]]:
    """Pad like TensorFlow's SAME: output sizes are size / stride rounded up; odd padding goes last.

    Args:
        maps: (N, D, H, W).
        convolution: Gives kernel, stride and dilation.

    Returns:
        The maps and the symmetric (vertical, horizontal) padding for the convolution. Maps are
        copied only for asymmetric padding (stride 2 on an even size).
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
