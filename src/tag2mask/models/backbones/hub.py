"""Convolutional networks of `transformers`: MobileNet, ResNet, RegNet, ConvNeXt and others.

Weights come from a hub id or a local path and do not change. Late strides are removed and later
layers are dilated until the last map has the requested stride (`models/dilation.py`). f1, f2 and f3
are the network's last maps at strides 4, 8 and 16; f4 is its last map.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from tag2mask.errors import WeightsError
from tag2mask.models.architecture import network_config, one_line
from tag2mask.models.base import Backbone, Features
from tag2mask.models.dilation import PROBE_PX, limit_stride
from tag2mask.models.folding import fold_layers, pad_within
from tag2mask.models.published import (
    LIBRARY_ERRORS,
    PublishedConfig,
    build_network,
    freeze_unused,
)
from tag2mask.models.weights import UNKNOWN_LICENSE, card_license, fill, license, read_tensors

NATIVE = (4, 8, 16)
"""Strides of f1, f2, f3 in the published network."""


class HubConfig(PublishedConfig):
    """A convolutional network of `transformers`."""

    name: str = "hub"
    """Backbone: a file of the folder `models/backbones`."""
    stride: Literal[8, 16, 32] = 16
    """Stride of the last map in pixels; below the network's own stride, late layers are dilated."""


class Hub(Backbone):
    """A published convolutional network at stride 8, 16 or 32, without its classifier.

    BatchNorm statistics of loaded weights never change, even in training mode. From scratch, they
    are trained as usual.
    """

    Config = HubConfig

    def __init__(self, config: HubConfig) -> None:
        resolved = config.resolved()
        super().__init__(*resolved.statistics())
        network = network_config(cast(dict[str, Any], resolved.arch))
        self.cnn: nn.Module = build_network(network)
        if config.pretrained is not None:
            self._load(config.pretrained)
        sides = self._sides(network.model_type)
        self._ends = end_maps(sides, network.model_type)
        native = PROBE_PX // sides[-1]
        check_stride(config.stride, native, network)
        self.strides = cast(
            tuple[int, int, int, int],
            tuple(min(stride, config.stride) for stride in (*NATIVE, native)),
        )
        if config.stride < native:
            self._limit_stride(config.stride, network.model_type)
        pad_within(self.cnn)
        fold_layers(self.cnn)
        self.channels = cast(
            tuple[int, int, int, int], tuple(self._probe()[end].shape[1] for end in self._ends)
        )
        self._divisor = 1
        if not self._rounds_up():
            self._divisor = self.strides[-1]
        freeze_unused(self.cnn, lambda: [self._probe()[end] for end in self._ends])

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """See `Backbone.forward`."""
        height, width = image.shape[-2:]
        missing = (-height % self._divisor, -width % self._divisor)
        if any(missing):
            image = F.pad(image, (0, missing[1], 0, missing[0]))
        all_maps = self._all_maps(image.contiguous(memory_format=torch.channels_last))
        maps = (
            all_maps[end][:, :, : -(-height // stride), : -(-width // stride)]
            for end, stride in zip(self._ends, self.strides, strict=True)
        )
        return Features(tuple(maps), ())

    def train(self, mode: bool = True) -> Hub:
        """Set the mode; BatchNorms with loaded statistics stay in evaluation mode."""
        super().train(mode)
        if self.loaded:
            for module in self.cnn.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def _all_maps(self, image: Tensor) -> list[Tensor]:
        """Compute all (N, D, h, w) maps that the network returns, in order."""
        output = self.cnn(pixel_values=image, output_hidden_states=True)
        all_maps = (*output.hidden_states, output.last_hidden_state)
        return [maps for maps in all_maps if maps.dim() == 4]

    def _probe(self, height: int = PROBE_PX, width: int = PROBE_PX) -> list[Tensor]:
        """Compute all maps of a black image without updating statistics."""
        training = self.cnn.training
        self.cnn.eval()
        maps = self._all_maps(torch.zeros(1, 3, height, width))
        self.cnn.train(training)
        return maps

    def _sides(self, name: str) -> list[int]:
        """Measure the side of every map for an image of PROBE_PX.

        Raises:
            WeightsError: If the network does not accept this image size.
        """
        try:
            return [maps.shape[-1] for maps in self._probe()]
        except LIBRARY_ERRORS as error:
            raise WeightsError(
                f"{name}: cannot be a backbone, because it does not run on images of any size "
                f"({one_line(error)})"
            ) from error

    def _limit_stride(self, stride: int, name: str) -> None:
        """Dilate the network to a stride below its own."""
        try:
            limit_stride(self.cnn, self._all_maps, stride)
        except WeightsError as error:
            raise WeightsError(f"{name}: {error}") from error

    def _rounds_up(self) -> bool:
        """Return whether map sizes are image sizes / stride, rounded up, for any image size."""
        sizes = ((33, 47), (50, 62))
        return all(
            tuple(maps[end].shape[-2:]) == (-(-height // stride), -(-width // stride))
            for height, width in sizes
            for maps in (self._probe(height, width),)
            for end, stride in zip(self._ends, self.strides, strict=True)
        )

    def _load(self, weights: str) -> None:
        """Load a checkpoint with or without a classifier."""
        prefix = f"{cast(PreTrainedModel, self.cnn).base_model_prefix}."
        tensors = read_tensors(weights)
        if any(name.startswith(prefix) for name in tensors):
            tensors = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
        self.loaded = frozenset(f"cnn.{name}" for name in fill(self.cnn, tensors, weights))
        known = license(weights)
        self.weights_license = card_license(weights) if known == UNKNOWN_LICENSE else known


def end_maps(sides: list[int], name: str) -> tuple[int, int, int, int]:
    """Select f1..f4: the last map at each of the strides 4, 8 and 16, and the last map.

    Args:
        sides: Side of every map of the network for an image of PROBE_PX.
        name: Name of the network for messages.

    Returns:
        Indices into `sides`.

    Raises:
        WeightsError: If the network has no such maps.
    """
    ends = [
        max((index for index, side in enumerate(sides) if side * stride == PROBE_PX), default=-1)
        for stride in NATIVE
    ]
    if min(ends) < 0:
        raise WeightsError(
            f"{name}: has no maps at strides 4, 8 and 16, so it cannot be a backbone; "
            "use a convolutional network (MobileNet, ResNet, RegNet, ConvNeXt)"
        )
    return ends[0], ends[1], ends[2], len(sides) - 1


def check_stride(stride: int, native: int, config: PreTrainedConfig) -> None:
    """Reject a stride that the network cannot have.

    Raises:
        WeightsError: If it is above the network's own, or below it and the network has attention.
    """
    kind = config.model_type
    if stride > native:
        raise WeightsError(f"{kind}: its last map has stride {native}; set backbone.stride to that")
    if stride < native and any("heads" in key for key in config.to_dict()):
        raise WeightsError(
            f"{kind}: has attention, so its stride {native} cannot be changed; "
            f"set backbone.stride to {native}"
        )
