"""All the settings that produce a mask, as plain values that are stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tag2mask.checkpoint import versions
from tag2mask.config.recipe import Recipe
from tag2mask.config.schema import PredictConfig
from tag2mask.functional.precision import runs_in_bf16
from tag2mask.inference.multi_scale import confident_labels_of
from tag2mask.inference.postprocessing import PostProcessor
from tag2mask.methods.base import Method
from tag2mask.methods.protocol import InferenceProtocol
from tag2mask.types import ClassSource


def describe_settings(
    method: Method,
    recipe: Recipe,
    postprocessor: PostProcessor,
    protocol: InferenceProtocol,
    *,
    class_source: ClassSource,
    origin: Mapping[str, str],
    device_type: str,
) -> dict[str, Any]:
    """All the settings that produce a mask, as plain values for JSON.

    Args:
        method: The network.
        recipe: Its recipe.
        postprocessor: Has the resolved test-time settings, the refiner and the CRF.
        protocol: Inference protocol of the masks.
        class_source: Where the classes come from.
        origin: Where the weights come from.
        device_type: Type of the device that the network runs on.
    """
    config = postprocessor.config
    refiner, crf = (
        None if one is None else one.config for one in (postprocessor.refiner, postprocessor.crf)
    )
    by_classifier = class_source == "classifier" and protocol.selects_by_classifier
    return {
        **origin,
        **versions(),
        "method": recipe.method.name,
        **_labeling_settings(method, recipe),
        "class_source": class_source,
        "stride": method.backbone.strides[-1],
        "protocol": protocol.name,
        "scales": list(config.scales or ()),
        "flip": config.flip,
        "long_side_px": config.long_side_px,
        "max_side_px": config.max_side_px,
        "tile_px": config.tile_px,
        "tile_overlap": config.tile_overlap,
        "value_range": recipe.data.value_range,
        "has_background": config.has_background,
        "background": _fixed_background(config),
        "background_rule": config.background_rule if config.has_background else None,
        "class_threshold": config.class_threshold if by_classifier else None,
        "fallback": (config.fallback or not config.has_background) if by_classifier else None,
        "propagate": config.propagate,
        **_confident_settings(config),
        "min_confidence": config.min_confidence or None,
        "refiner": refiner.model_dump(mode="json") if refiner is not None else None,
        "crf": crf.model_dump(mode="json") if crf is not None else None,
        "precision": "bf16" if runs_in_bf16(config.precision, device_type) else "fp32",
    }


def _fixed_background(config: PredictConfig) -> float | None:
    """The background score, if it is the same for all images."""
    is_fixed = config.has_background and config.background_rule == "fixed"
    return config.background_score if is_fixed else None


def _labeling_settings(method: Method, recipe: Recipe) -> dict[str, Any]:
    """Settings of a method that works while labeling; those of others describe its training."""
    if not method.works_while_labeling:
        return {}
    return {"labeling": recipe.method.model_dump(mode="json", exclude={"name"})}


def _confident_settings(config: PredictConfig) -> dict[str, Any]:
    """How confident pseudo-labels are made, if only they are written."""
    labels = confident_labels_of(config)
    if config.confident is None or labels is None:
        return {}
    return {
        "confident": config.confident.name,
        "foreground_threshold": labels.foreground_threshold,
        "background_threshold": labels.background_threshold,
    }
