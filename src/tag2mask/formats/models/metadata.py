"""What a model file says about itself, as strings by key."""

from __future__ import annotations

import json

from tag2mask.checkpoint import versions
from tag2mask.inference.segmenter import Segmenter

INPUTS = ("image", "tags")
OUTPUTS = ("mask", "scores")
USE = (
    "image: (H, W, 3) uint8 RGB, any size; tags: optional (classes,) float32, above 0 for each "
    "class that the image shows; mask: (H, W) uint8, 0 background, k is classes[k - 1]; scores: "
    "(classes,) probabilities"
)


def model_metadata(segmenter: Segmenter) -> dict[str, str]:
    """Return classes, thresholds, settings, versions and the license of the backbone's weights."""
    settings = segmenter.settings("classifier")
    run = str(settings.pop("run", ""))
    return {
        "classes": json.dumps(list(segmenter.class_names), ensure_ascii=False),
        "weights_license": segmenter.method.backbone.weights_license,
        "class_threshold": json.dumps(settings["class_threshold"]),
        "background": json.dumps(settings["background"]),
        "settings": json.dumps(settings, default=str, ensure_ascii=False),
        "backbone": segmenter.recipe.backbone.name,
        "run": run.replace("\\", "/").rstrip("/").rpartition("/")[2],
        "use": USE,
        **{f"{name}_version": version for name, version in versions().items()},
    }
