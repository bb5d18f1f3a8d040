"""Steps 2 and 3 from image to mask: the network at every scale, then the classes of the mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tag2mask import plugins
from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.methods.base import Method
from tag2mask.methods.confident import ConfidentLabels
from tag2mask.methods.protocol import InferenceProtocol, NetworkOutput
from tag2mask.types import ClassSource

AUTO = "auto"
"""Value of `predict.protocol` that stands for the method's own protocol."""
GPU_BATCH_SIZE = 8
"""Default of `predict.batch_size` on a GPU; on a CPU larger passes are not faster."""


def protocol_of(config: PredictConfig, method: Method) -> InferenceProtocol:
    """Return the inference protocol that a recipe asks for.

    Raises:
        UnknownPluginError: If `predict.protocol` names no method.
    """
    if config.protocol == AUTO:
        return method.protocol
    named: type[Method] = plugins.load("methods", config.protocol)
    return named.protocol


def confident_labels_of(config: PredictConfig) -> ConfidentLabels | None:
    """Return how confident pseudo-labels are made, with the recipe's thresholds; None if not asked.

    Raises:
        RecipeError: If the method named there has no way to make them.
    """
    if config.confident is None:
        return None
    named: type[Method] = plugins.load("methods", config.confident.name)
    labels = named.confident_labels
    if labels is None:
        raise RecipeError(
            f"predict.confident.name: {config.confident.name} does not make confident "
            "pseudo-labels; use irn or psa"
        )
    chosen = config.confident.model_dump(exclude={"name"}, exclude_none=True)
    return labels._replace(**chosen)


def resolve_inference_config(config: PredictConfig, method: Method) -> PredictConfig:
    """Fill in what the recipe leaves to the protocol, and check that all fits together.

    Raises:
        RecipeError: If the protocol does not serve this method, or settings contradict each other.
    """
    protocol = protocol_of(config, method)
    protocol.check(method, config)
    if config.confident is not None and not config.has_background:
        raise RecipeError(
            "predict.has_background: confident pseudo-labels need a background; turn one off"
        )
    confident_labels_of(config)
    return protocol.complete_config(config)


@torch.no_grad()
def predict_multi_scale(
    method: Method,
    image: Tensor,
    config: PredictConfig,
    tags: Tensor | None = None,
    name: str = "",
) -> NetworkOutput:
    """Run a network on one image at every scale; each scale is one pass with both flips.

    Args:
        method: In evaluation mode, on the device of `image`.
        image: (1, 3, H, W) uint8 RGB.
        config: Protocol, scales, flip, working size.
        tags: (1, F) in {0, 1}, for methods that read tags while labeling.
        name: Name of the image, for methods that draw random numbers while labeling.
    """
    config = resolve_inference_config(config, method)
    protocol = protocol_of(config, method)
    normalized = protocol.normalized_image(method, image, config)
    return protocol.predict(method, normalized, config, tags, name)


@torch.no_grad()
def predict_together(
    method: Method, images: Sequence[Tensor], config: PredictConfig, tags: Tensor | None = None
) -> list[NetworkOutput]:
    """Run a network on several images, which share the pass at every scale.

    Args:
        method: In evaluation mode, on the device of the images.
        images: Each (1, 3, H, W) uint8 RGB; all have one working size.
        config: With it `images_per_pass` is above 1.
        tags: (N, F) in {0, 1}, or None for untagged images.
    """
    config = resolve_inference_config(config, method)
    protocol = protocol_of(config, method)
    normalized = torch.cat([protocol.normalized_image(method, image, config) for image in images])
    output = protocol.predict(method, normalized, config, tags, "")
    return [output.of_image(index) for index in range(len(images))]


def images_per_pass(method: Method, config: PredictConfig, device_type: str) -> int:
    """Return the largest number of images that share a forward pass.

    It is 1 where images are processed one by one: by methods that work while labeling, with
    propagation, and by protocols that take no batches.
    """
    chosen = config.batch_size or (1 if device_type == "cpu" else GPU_BATCH_SIZE)
    if chosen == 1 or config.propagate or method.works_while_labeling:
        return 1
    return chosen if protocol_of(config, method).takes_batches else 1


@torch.no_grad()
def class_probs(method: Method, image: Tensor, config: PredictConfig) -> Tensor:
    """(1, F) class probabilities of one (1, 3, H, W) uint8 image, from scale 1 alone."""
    config = resolve_inference_config(config, method)
    protocol = protocol_of(config, method)
    return protocol.class_probs(method, protocol.normalized_image(method, image, config), config)


def select_classes(
    probs: Tensor,
    tags: Tensor | None,
    config: PredictConfig,
    protocol: InferenceProtocol,
    class_source: ClassSource,
) -> tuple[int, ...]:
    """Select the classes that a mask may contain.

    Args:
        probs: (1, F) class probabilities, read with class source `classifier`.
        tags: (1, F) in {0, 1}, read with class source `tags`.
        config: Class threshold, and whether the most probable class is kept if none passes it.
        protocol: If it does not select by the classifier, class source `classifier` leaves the
            choice among all classes to the decoder.
        class_source: Where the classes come from.

    Returns:
        Rising indices into the foreground classes; empty for an image of background only.

    Raises:
        ValueError: If the class source is `tags` and there are no tags.
    """
    if class_source == "tags":
        if tags is None:
            raise ValueError("class source 'tags' needs tags")
        return tuple(tags[0].nonzero()[:, 0].tolist())
    if not protocol.selects_by_classifier:
        return tuple(range(probs.shape[1]))
    selected = (probs[0] > config.class_threshold).nonzero()[:, 0].tolist()
    if not selected and (config.fallback or not config.has_background):
        selected = [int(probs[0].argmax())]
    return tuple(selected)
