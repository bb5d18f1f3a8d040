"""Networks of `transformers` as parts of a backbone: settings, construction, unused parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from tag2mask.config.schema import BackboneConfig
from tag2mask.errors import WeightsError
from tag2mask.models.architecture import one_line, pixel_statistics, resolve_architecture

Triple = tuple[float, float, float]
LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors that `transformers` raises for unsuitable networks and contradictory settings."""


class PublishedConfig(BackboneConfig):
    """A network of `transformers`."""

    arch: str | dict[str, Any] | None = None
    """Architecture: a name (`mobilenet_v1_0.75_224`, `resnet50`), a folder or hub id with a
    config.json, or its content. `none` uses that of the weights. Saved recipes contain the
    content."""
    mean: Triple | None = None
    """Mean of the pixel values 0 to 255; `none` uses the values published with the weights."""
    std: Triple | None = None
    """Standard deviation of the pixel values; `none` uses the published values."""

    @property
    def pretrained(self) -> str | None:
        """Path or hub id of the weights; None to train from scratch."""
        return None if self.weights in (None, "none") else self.weights

    def resolved(self) -> Self:
        """Fill in the architecture, mean and standard deviation; see `BackboneConfig.resolved`."""
        arch = resolve_architecture(self.arch, self.pretrained)
        mean, std = self.mean, self.std
        if mean is None or std is None:
            published = pixel_statistics(self.pretrained, arch)
            mean, std = mean or published[0], std or published[1]
        return self.model_copy(update={"arch": arch, "mean": mean, "std": std})

    def statistics(self) -> tuple[Triple, Triple]:
        """Return mean and standard deviation of a resolved configuration."""
        return cast(Triple, self.mean), cast(Triple, self.std)


def build_network(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a network without a classifier and with random weights.

    Raises:
        WeightsError: If the network cannot be built or does not take images.
    """
    try:
        network: PreTrainedModel = cast(Any, AutoModel).from_config(config, dtype=torch.float32)
    except LIBRARY_ERRORS as error:
        raise WeightsError(f"{config.model_type}: cannot be built ({one_line(error)})") from error
    if network.main_input_name != "pixel_values":
        raise WeightsError(f"{config.model_type}: not a network for images")
    return network


def freeze_unused(network: nn.Module, outputs: Callable[[], Sequence[Tensor]]) -> None:
    """Freeze parameters that no output depends on, such as a norm after the final pooling."""
    parameters = list(network.parameters())
    with torch.enable_grad():
        total = torch.stack([output.sum() for output in outputs()]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
