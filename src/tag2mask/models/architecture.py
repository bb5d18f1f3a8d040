"""Architectures of `transformers` as plain values that a recipe can store completely."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from tag2mask.errors import WeightsError
from tag2mask.models.weights import read_config, read_json

Triple = tuple[float, float, float]
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_STATISTICS = {
    "mobilenet_v1": _HALF,
    "mobilenet_v2": _HALF,
    "vit": _HALF,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
}
"""Default mean and standard deviation of pixels in [0, 1]; ImageNet's for other networks."""
_MOBILENET = re.compile(r"mobilenet_v([12])_(\d+\.\d+)(?:_(\d+))?")
_RESNET = re.compile(r"resnet-?(18|26|34|50|101|152)")
_RESNET_DEPTHS = {
    18: [2, 2, 2, 2],
    26: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
}
_MAX_LENGTH = 160
_NOT_LAYERS = {*PreTrainedConfig().to_dict(), "stage_names", "out_features", "out_indices"}
"""Keys of a config.json that do not describe layers: class names, versions, outputs."""


def resolve_architecture(
    arch: str | Mapping[str, Any] | None, weights: str | None
) -> dict[str, Any]:
    """Find an architecture and list all of its settings.

    Args:
        arch: A known name, a folder or hub id with a config.json, its content, or None.
        weights: Path or hub id of weights, whose config.json is read if `arch` is None.

    Returns:
        `model_type` and every setting of the layers, including defaults, so that new defaults of
        `transformers` do not change a finished run.

    Raises:
        WeightsError: If there is no architecture, or `transformers` does not have it.
    """
    config = network_config(_read_architecture(arch, weights))
    layers = {
        key: value
        for key, value in config.to_dict().items()
        if key not in _NOT_LAYERS and not key.startswith("_")
    }
    return {"model_type": config.model_type, **layers}


def _read_architecture(
    arch: str | Mapping[str, Any] | None, weights: str | None
) -> Mapping[str, Any]:
    """Read the settings from a name, a config.json, or the config.json next to the weights."""
    if isinstance(arch, Mapping):
        return arch
    source = arch or weights
    if source is None:
        raise WeightsError(
            "this backbone needs backbone.weights (a path or hub id), or backbone.arch to train "
            "from scratch"
        )
    known = None if Path(source).exists() else known_architecture(source)
    if known is not None:
        return known
    content = read_config(source)
    if "model_type" not in content:
        raise WeightsError(f"{source}: no config.json with a model_type; set backbone.arch")
    return content


def known_architecture(name: str) -> dict[str, Any] | None:
    """Look up names such as `mobilenet_v1_0.75_224`, `mobilenet_v2_1.0` and `resnet50`, offline.

    Returns:
        Settings for `network_config`, or None for other names.

    Example:
        >>> known_architecture("mobilenet_v2_1.0")["depth_multiplier"]
        1.0
    """
    mobilenet, resnet = _MOBILENET.fullmatch(name), _RESNET.fullmatch(name)
    if mobilenet:
        version, depth_multiplier, side = mobilenet.groups()
        return {
            "model_type": f"mobilenet_v{version}",
            "depth_multiplier": float(depth_multiplier),
            "image_size": int(side or 224),
        }
    if resnet is None:
        return None
    depth = int(resnet[1])
    if depth in (18, 34):
        sizes, layer = [64, 128, 256, 512], "basic"
    else:
        sizes, layer = [256, 512, 1024, 2048], "bottleneck"
    return {
        "model_type": "resnet",
        "depths": _RESNET_DEPTHS[depth],
        "hidden_sizes": sizes,
        "layer_type": layer,
    }


def network_config(arch: Mapping[str, Any]) -> PreTrainedConfig:
    """Turn plain values into a configuration of `transformers`.

    Raises:
        WeightsError: If `transformers` does not have the architecture or rejects a value.
    """
    settings = dict(arch)
    kind = settings.pop("model_type", None)
    try:
        config: PreTrainedConfig = AutoConfig.for_model(str(kind), **settings)
    except (ValueError, TypeError, StrictDataclassError) as error:
        if str(error).startswith("Unrecognized model identifier"):
            raise WeightsError(
                f"backbone.arch: transformers has no architecture '{kind}'"
            ) from error
        raise WeightsError(f"backbone.arch: {one_line(error)}") from error
    return config


def one_line(error: Exception) -> str:
    """Shorten a library's error message to one line."""
    return " ".join(str(error).split())[:_MAX_LENGTH]


def pixel_statistics(source: str | None, arch: Mapping[str, Any]) -> tuple[Triple, Triple]:
    """Find the mean and standard deviation of pixel values 0 to 255 that weights expect.

    Args:
        source: Path or hub id; its preprocessor_config.json is read if there is one.
        arch: From `resolve_architecture`; selects the defaults.

    Raises:
        WeightsError: If the file is not valid JSON.
    """
    mean, std = _STATISTICS.get(arch["model_type"], _IMAGENET)
    published = read_json(source, "preprocessor_config.json") if source is not None else {}
    if not published.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
    mean, std = _triple(published.get("image_mean", mean)), _triple(published.get("image_std", std))
    if published.get("include_top"):  # EfficientNet divides by the standard deviation twice
        std = _triple(value**2 for value in std)
    return _triple(255 * value for value in mean), _triple(255 * value for value in std)


def _triple(values: Iterable[float]) -> Triple:
    """Convert to a tuple with one value per color."""
    red, green, blue = values
    return red, green, blue
