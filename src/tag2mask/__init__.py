"""Images with image-level tags in, pixel masks out.

The public names below are imported when first used, so that `import tag2mask` stays quick.

    >>> import tag2mask
    >>> tag2mask.IGNORE
    255
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tag2mask.config.recipe import Recipe, load_recipe
    from tag2mask.errors import Tag2MaskError
    from tag2mask.evaluation.evaluator import evaluate_folder
    from tag2mask.inference.segmenter import Segmenter, load
    from tag2mask.pipeline import train
    from tag2mask.types import BACKGROUND, IGNORE, Prediction, Report

_HOME = {
    "BACKGROUND": "tag2mask.types",
    "IGNORE": "tag2mask.types",
    "Prediction": "tag2mask.types",
    "Recipe": "tag2mask.config.recipe",
    "Report": "tag2mask.types",
    "Segmenter": "tag2mask.inference.segmenter",
    "Tag2MaskError": "tag2mask.errors",
    "evaluate_folder": "tag2mask.evaluation.evaluator",
    "load": "tag2mask.inference.segmenter",
    "load_recipe": "tag2mask.config.recipe",
    "train": "tag2mask.pipeline",
}
"""Public name -> module that defines it."""

__all__ = [
    "BACKGROUND",
    "IGNORE",
    "Prediction",
    "Recipe",
    "Report",
    "Segmenter",
    "Tag2MaskError",
    "__version__",
    "evaluate_folder",
    "load",
    "load_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tag2mask")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tag2mask' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
