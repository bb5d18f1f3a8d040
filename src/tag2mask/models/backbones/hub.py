"""Any convolutional network of `transformers`: MobileNet, ResNet, RegNet, ConvNeXt and others.

By hub id or local path. The last strides are removed and what follows is dilated until the last map
has the stride asked for (`models/dilation.py`); weights are unchanged. The maps are the last ones
the network has at its strides 4, 8 and 16, and its last of all.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from tag2mask.config.schema import BackboneConfig
from tag2mask.errors import WeightsError
from tag2mask.models.architecture import (
    network_config,
    one_line,
    pixel_statistics,
    settle_architecture,
)
from tag2mask.models.base import Backbone, Features
from tag2mask.models.dilation import PROBE_PX, limit_stride
from tag2mask.models.folding import fold_layers, pad_within
from tag2mask.models.weights import UNKNOWN_LICENSE, card_license, fill, license, read_tensors

Triple = tuple[float, float, float]
NATIVE = (4, 8, 16)
"""Strides of f1, f2, f3 in the network as published."""
_LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What networks that are no backbone, or settings that contradict each other, raise in there."""


class HubConfig(BackboneConfig):
    """A convolutional network of `transformers`."""

    name: str = "hub"
    """Backbone: a file of the folder `models/backbones`."""
    arch: str | dict[str, Any] | None = None
    """Architecture: a name (`mobilenet_v1_0.75_224`, `resnet50`), a folder or hub id with a
    config.json, or its content. none: that of the weights. A run's own recipe holds the content."""
    stride: Literal[8, 16, 32] = 16
    """Pixels per cell of the last map; below the network's own, its last layers are dilated."""
    mean: Triple | None = None
    """Mean of the pixel values 0 to 255 that the weights expect. none: as published with them."""
    std: Triple | None = None
    """Their standard deviation. none: as published with the weights."""

    @property
    def pretrained(self) -> str | None:
        """Where weights are to be had; None when training starts from scratch."""
        return None if self.weights in (None, "none") else self.weights

    def resolved(self) -> HubConfig:
        """See `BackboneConfig.resolved`: the architecture in full, and mean and deviation."""
        arch = settle_architecture(self.arch, self.pretrained)
        mean, std = self.mean, self.std
        if mean is None or std is None:
            published = pixel_statistics(self.pretrained, arch)
            mean, std = mean or published[0], std or published[1]
        return self.model_copy(update={"arch": arch, "mean": mean, "std": std})


class Hub(Backbone):
    """A published convolutional network at stride 8, 16 or 32, without its classifier.

    BatchNorm statistics of loaded weights never change, not even in training mode; from scratch
    they are trained as usual.
    """

    Config = HubConfig

    def __init__(self, config: HubConfig) -> None:
        resolve_inference_config = config.resolved()
        super().__init__(
            cast(Triple, resolve_inference_config.mean), cast(Triple, resolve_inference_config.std)
        )
        described = network_config(cast(dict[str, Any], resolve_inference_config.arch))
        self.cnn: nn.Module = build_network(described)
        if config.pretrained is not None:
            self._load(config.pretrained)
        sides = self._sides(described.model_type)
        self._ends = end_maps(sides, described.model_type)
        native = PROBE_PX // sides[-1]
        check_stride(config.stride, native, described)
        self.strides = cast(
            tuple[int, int, int, int],
            tuple(min(stride, config.stride) for stride in (*NATIVE, native)),
        )
        if config.stride < native:
            self._refine(config.stride, described.model_type)
        pad_within(self.cnn)
        fold_layers(self.cnn)
        self.channels = cast(
            tuple[int, int, int, int], tuple(self._probe()[end].shape[1] for end in self._ends)
        )
        self._divisor = 1
        if not self._rounds_up():
            self._divisor = self.strides[-1]
        self._freeze_unused()

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """See `Backbone.forward`."""
        height, width = image.shape[-2:]
        missing = (-height % self._divisor, -width % self._divisor)
        if any(missing):
            image = F.pad(image, (0, missing[1], 0, missing[0]))
        every = self._all_maps(image.contiguous(memory_format=torch.channels_last))
        maps = (
            every[end][:, :, : -(-height // stride), : -(-width // stride)]
            for end, stride in zip(self._ends, self.strides, strict=True)
        )
        return Features(tuple(maps), ())

    def train(self, mode: bool = True) -> Hub:
        """Switch modes; BatchNorms with loaded statistics stay in evaluation mode."""
        super().train(mode)
        if self.loaded:
            for module in self.cnn.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def _all_maps(self, image: Tensor) -> list[Tensor]:
        """Every (N, D, h, w) map that the network returns, in order."""
        output = self.cnn(pixel_values=image, output_hidden_states=True)
        every = (*output.hidden_states, output.last_hidden_state)
        return [maps for maps in every if maps.dim() == 4]

    def _probe(self, height: int = PROBE_PX, width: int = PROBE_PX) -> list[Tensor]:
        """All maps of a black image, statistics untouched."""
        training = self.cnn.training
        self.cnn.eval()
        maps = self._all_maps(torch.zeros(1, 3, height, width))
        self.cnn.train(training)
        return maps

    def _sides(self, name: str) -> list[int]:
        """Side of every map of an image of PROBE_PX.

        Raises:
            WeightsError: If the network does not look at images of any size.
        """
        try:
            return [maps.shape[-1] for maps in self._probe()]
        except _LIBRARY_ERRORS as error:
            raise WeightsError(
                f"{name}: cannot be a backbone, since it does not run on images of any size "
                f"({one_line(error)})"
            ) from error

    def _refine(self, stride: int, name: str) -> None:
        """Let the network end at a stride below its own."""
        try:
            limit_stride(self.cnn, self._all_maps, stride)
        except WeightsError as error:
            raise WeightsError(f"{name}: {error}") from error

    def _rounds_up(self) -> bool:
        """Whether the network's own maps have size / stride cells, rounded up, at any size."""
        sizes = ((33, 47), (50, 62))
        return all(
            tuple(maps[end].shape[-2:]) == (-(-height // stride), -(-width // stride))
            for height, width in sizes
            for maps in (self._probe(height, width),)
            for end, stride in zip(self._ends, self.strides, strict=True)
        )

    def _freeze_unused(self) -> None:
        """Freeze what no map depends on, such as a norm behind the pooling of the classifier."""
        parameters = list(self.cnn.parameters())
        with torch.enable_grad():
            maps = self._probe()
            total = torch.stack([maps[end].sum() for end in self._ends]).sum()
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def _load(self, weights: str) -> None:
        """Fill the network from a checkpoint, with or without a classifier."""
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


def build_network(described: PreTrainedConfig) -> PreTrainedModel:
    """Build a network without classifier, weights at random.

    Raises:
        WeightsError: If it is not one that looks at images, or lacks a library.
    """
    try:
        network: PreTrainedModel = cast(Any, AutoModel).from_config(described, dtype=torch.float32)
    except _LIBRARY_ERRORS as error:
        raise WeightsError(
            f"{described.model_type}: cannot be built ({one_line(error)})"
        ) from error
    if network.main_input_name != "pixel_values":
        raise WeightsError(f"{described.model_type}: is no network for images")
    return network


def end_maps(sides: list[int], name: str) -> tuple[int, int, int, int]:
    """Choose f1..f4: the last map at each of the strides 4, 8 and 16, and the last of all.

    Args:
        sides: Side of every map of the network, for an image of PROBE_PX.
        name: Names the network in messages.

    Raises:
        WeightsError: If the network has no such maps.
    """
    ends = [
        max((index for index, side in enumerate(sides) if side * stride == PROBE_PX), default=-1)
        for stride in NATIVE
    ]
    if min(ends) < 0:
        raise WeightsError(
            f"{name}: gives no maps at strides 4, 8 and 16, so it cannot be a backbone; "
            "take a convolutional network (MobileNet, ResNet, RegNet, ConvNeXt)"
        )
    return ends[0], ends[1], ends[2], len(sides) - 1


def check_stride(asked: int, native: int, described: PreTrainedConfig) -> None:
    """Refuse a stride that a network cannot be given.

    Raises:
        WeightsError: If it is coarser than the network's own, or finer and the network attends.
    """
    kind = described.model_type
    if asked > native:
        raise WeightsError(f"{kind}: its last map has stride {native}; set backbone.stride to that")
    if asked < native and any("heads" in key for key in described.to_dict()):
        raise WeightsError(
            f"{kind}: has attention, so its stride {native} cannot be changed; "
            f"set backbone.stride to {native}"
        )
