"""MobileNetV1 with a parallel transformer branch, small enough to train on two CPU cores.

All layers of MobileNetV1 (arXiv 1704.04861; modules and weights of `transformers`) run with the
last stride removed. A transformer branch is fused with their map (`models/branch.py`). Its
attention logits can feed an affinity head.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import MobileNetV1Config, MobileNetV1Model

from tag2mask.errors import WeightsError
from tag2mask.models.base import Backbone, Features, QueryKey
from tag2mask.models.branch import Branch, BranchedConfig
from tag2mask.models.conv_norm import conv_norm_relu
from tag2mask.models.weights import fill, license, read_config, read_tensors

PIXEL_MIDDLE = (127.5, 127.5, 127.5)
ENDS = (2, 4, 10)
"""Separable layers, 0 to 12, whose outputs are f1, f2, f3."""
UNSTRIDED, DILATED = 11, 12
"""The separable layer without its stride, and the next one, which is dilated to compensate."""


class HybridConfig(BranchedConfig):
    """MobileNetV1 with a parallel transformer branch."""

    name: str = "hybrid"
    """Backbone: a file of the folder `models/backbones`."""
    depth_multiplier: Annotated[float, Field(gt=0, le=2)] = 0.75
    """Width factor of MobileNetV1; must match the weights."""


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
        self.branch: Branch | None = None
        if config.blocks:
            self.branch = Branch(f4, config.blocks, config.fusion)
            f4 = self.branch.channels
            self.attention_channels = self.branch.attention_channels
            self.head_dim = self.branch.head_dim
        self.channels = (f1, f2, f3, f4)
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
            out = self.branch(out, capture if attention else None)
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
