"""Wide-ResNet-38 at stride 8, the network of PSA, SEAM, AEFT, OC-CSE, RRM and 1Stage.

Paper: Wider or Deeper: Revisiting the ResNet Model for Visual Recognition (arXiv 1611.10080), Model
A1. Strides and dilations follow Specification 4.1: blocks b2, b3 and b4 start with stride 2; b5 has
dilation 2 after its first convolution; b6 and b7 have dilation 4.

Weights are the authors' MXNet file `ilsvrc-cls_rna-a1_cls1000_ep-0001.params`, its conversion by
`tag2mask convert`, or the torch files of PSA and its successors. Names: `conv1a.weight`,
`bn7.*`, and for each block B of b2 b2_1 b2_2 b3 b3_1 b3_2 b4 b4_1..b4_5 b5 b5_1 b5_2 b6 b7:
`B.bn_branch2a.*`, `B.conv_branch2a.weight`, `B.bn_branch2b1.*`, `B.conv_branch2b1.weight`; for b6
and b7 also `B.bn_branch2b2.*`, `B.conv_branch2b2.weight`; and where the width or size changes
`B.conv_branch1.weight`. `*` is weight, bias, running_mean, running_var.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.config.schema import BackboneConfig, Fraction
from tag2mask.errors import WeightsError
from tag2mask.models.base import Backbone, Features
from tag2mask.models.folding import fold
from tag2mask.models.mxnet_params import read_mxnet_params
from tag2mask.models.weights import fill, license, read_tensors

WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
"""Channels after conv1a, b2, ..., b7."""
REPEATS = {"b2": 2, "b3": 2, "b4": 5, "b5": 2}
"""Number of blocks of a stage after its first."""
FROZEN = ("conv1a", "b2", "b2_1", "b2_2")
"""Layers whose loaded weights are not trained."""
_OTHER = "not a Wide-ResNet-38; use ilsvrc-cls_rna-a1_cls1000_ep-0001.params or a file made from it"
_BN_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}
_PUBLISHED = re.compile(r"(?:arg:|aux:)?(res|bn)(\d)(?:a|b(\d))_(branch(?:1|2a|2b\d))_(\w+)")
_PUBLISHED_BN7 = re.compile(r"(?:arg:|aux:)?bn7_(\w+)")


class ResNet38dConfig(BackboneConfig):
    """Wide-ResNet-38 at stride 8."""

    name: str = "resnet38d"
    """Backbone: a file of the folder `models/backbones`."""
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Width factor; the published weights have 1."""
    dropout_b6: Fraction = 0.3
    """Probability of dropping a channel within block b6 in training."""
    dropout_b7: Fraction = 0.5
    """Probability of dropping a channel within block b7 in training."""


class Block(nn.Module):
    """Residual block: BatchNorm, ReLU and a 3 x 3 convolution, twice.

    Args:
        widths: Channels of the input, between the convolutions, and of the output.
        stride: Stride of the first convolution.
        dilation: Dilations of both convolutions.
    """

    def __init__(
        self, widths: tuple[int, int, int], stride: int = 1, dilation: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        before, between, after = widths
        first, second = dilation
        self.bn_branch2a = nn.BatchNorm2d(before)
        self.conv_branch2a = _conv3(before, between, first, stride)
        self.bn_branch2b1 = nn.BatchNorm2d(between)
        self.conv_branch2b1 = _conv3(between, after, second)
        fold(self.conv_branch2a, self.bn_branch2b1)
        changes = stride > 1 or before != after
        self.conv_branch1 = _conv1(before, after, stride) if changes else None

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the activation after the first BatchNorm and ReLU."""
        active = F.relu(self.bn_branch2a(maps), inplace=True)
        out = F.relu(self.bn_branch2b1(self.conv_branch2a(active)), inplace=True)
        shortcut = maps if self.conv_branch1 is None else self.conv_branch1(active)
        return shortcut + self.conv_branch2b1(out), active


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions after BatchNorm and ReLU, the last two after dropout.

    Args:
        before: Input channels.
        after: Output channels; a quarter after the first convolution, half after the second.
        dropout: Probability of dropping a channel in training.
        dilation: Dilation of the 3 x 3 convolution.
    """

    def __init__(self, before: int, after: int, dropout: float, dilation: int = 4) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(before)
        self.conv_branch2a = _conv1(before, after // 4)
        self.bn_branch2b1 = nn.BatchNorm2d(after // 4)
        self.conv_branch2b1 = _conv3(after // 4, after // 2, dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(after // 2)
        self.conv_branch2b2 = _conv1(after // 2, after)
        fold(self.conv_branch2a, self.bn_branch2b1)
        fold(self.conv_branch2b1, self.bn_branch2b2)
        self.conv_branch1 = _conv1(before, after)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the activation after the first BatchNorm and ReLU."""
        active = F.relu(self.bn_branch2a(maps), inplace=True)
        out = self.bn_branch2b1(self.conv_branch2a(active))
        out = self.dropout(F.relu(out, inplace=True))
        out = self.bn_branch2b2(self.conv_branch2b1(out))
        out = self.dropout(F.relu(out, inplace=True))
        return self.conv_branch1(active) + self.conv_branch2b2(out), active


class ResNet38d(Backbone):
    """Wide-ResNet-38 at stride 8.

    f1, f2 and f3 are the inputs of b4, b5 and b6 after BatchNorm and ReLU (PSA's code calls f2 and
    f3 conv4 and conv5); f4 is relu(bn7), or conv6. Loaded weights of conv1a, b2* and every
    BatchNorm are frozen, including statistics.
    """

    Config = ResNet38dConfig
    strides = (4, 8, 8, 8)

    def __init__(self, config: ResNet38dConfig) -> None:
        super().__init__()
        w1, w2, w3, w4, w5, w6, w7 = (max(round(config.width * width), 4) for width in WIDTHS)
        self.channels = (w3, w4, w5, w7)
        self.conv1a = _conv3(3, w1)
        self._add("b2", (w1, w2, w2), stride=2)
        self._add("b3", (w2, w3, w3), stride=2)
        self._add("b4", (w3, w4, w4), stride=2)
        self._add("b5", (w4, w4, w5), dilation=(1, 2))
        self.b6 = Bottleneck(w5, w6, config.dropout_b6)
        self.b7 = Bottleneck(w6, w7, config.dropout_b7)
        self.bn7 = nn.BatchNorm2d(w7)
        if config.weights not in (None, "none"):
            self._load(config.weights)

    def _add(
        self,
        name: str,
        widths: tuple[int, int, int],
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
    ) -> None:
        """Add the first block of a stage and its repetitions."""
        self.add_module(name, Block(widths, stride, dilation))
        _, between, after = widths
        dilation = (dilation[1], dilation[1])
        for index in range(1, REPEATS[name] + 1):
            self.add_module(f"{name}_{index}", Block((after, between, after), dilation=dilation))

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """See `Backbone.forward`."""
        out = self.conv1a(image.contiguous(memory_format=torch.channels_last))
        actives: dict[str, Tensor] = {}
        for name, block in self.named_children():
            if isinstance(block, Block | Bottleneck):
                out, active = block(out)
                if name in ("b4", "b5", "b6"):
                    actives[name] = active
        return Features((*actives.values(), F.relu(self.bn7(out), inplace=True)), ())

    def train(self, mode: bool = True) -> ResNet38d:
        """Set the mode; with loaded weights every BatchNorm stays in evaluation mode."""
        super().train(mode)
        if self.loaded:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def _load(self, weights: str) -> None:
        """Load weights and freeze conv1a, b2* and every BatchNorm."""
        self.loaded = fill(self, read_resnet38d(weights), weights)
        self.weights_license = license(weights)
        for name, module in self.named_modules():
            if name in FROZEN or isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)


def read_resnet38d(weights: str) -> dict[str, Tensor]:
    """Read weights of any published format with this module's names and without a classifier.

    Raises:
        WeightsError: If they cannot be read or belong to another network.
    """
    if Path(weights).suffix == ".params":
        named = published_names(read_mxnet_params(Path(weights).expanduser()), weights)
    else:
        named = read_tensors(weights)
    with torch.device("meta"):
        expected = ResNet38d(ResNet38dConfig()).state_dict().keys()
    missing = sorted(
        name for name in expected - named.keys() if not name.endswith("num_batches_tracked")
    )
    if missing:
        raise WeightsError(f"{weights}: lacks '{missing[0]}', so it is {_OTHER}")
    return {name: tensor for name, tensor in named.items() if name in expected}


def published_names(arrays: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename the arrays of the authors' MXNet file to this module's names; drop the classifier.

    Args:
        arrays: `arg:res2b1_branch2a_weight`, `aux:bn7_moving_mean` and so on.
        source: Origin of the arrays, for messages.

    Raises:
        WeightsError: If an array belongs to another network.
    """
    named: dict[str, Tensor] = {}
    for published, array in arrays.items():
        bare = published.removeprefix("arg:")
        if bare.startswith("linear"):
            continue
        name = "conv1a.weight" if bare == "conv1a_weight" else _layer_name(published)
        if name is None:
            raise WeightsError(f"{source}: contains '{published}', so it is {_OTHER}")
        named[name] = array.float()
    return named


def _layer_name(published: str) -> str | None:
    """Rename `arg:bn2b1_branch2a_gamma` to `b2_1.bn_branch2a.weight`; None for unknown names."""
    last = _PUBLISHED_BN7.fullmatch(published)
    if last:
        return f"bn7.{_BN_NAMES[last[1]]}" if last[1] in _BN_NAMES else None
    match = _PUBLISHED.fullmatch(published)
    if match is None:
        return None
    kind, stage, repeat, branch, value = match.groups()
    block = f"b{stage}_{repeat}" if repeat else f"b{stage}"
    if kind == "res":
        return f"{block}.conv_{branch}.weight" if value == "weight" else None
    return f"{block}.bn_{branch}.{_BN_NAMES[value]}" if value in _BN_NAMES else None


def _conv3(before: int, after: int, dilation: int = 1, stride: int = 1) -> nn.Conv2d:
    """Build a 3 x 3 convolution with padding that keeps sizes at stride 1."""
    return nn.Conv2d(before, after, 3, stride, dilation, dilation, bias=False)


def _conv1(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 1, stride, bias=False)
