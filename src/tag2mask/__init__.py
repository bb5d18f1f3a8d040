"""Images with image-level tags in, pixel masks out.

    >>> import tag2mask
    >>> tag2mask.IGNORE
    255

Public names are imported when they are first used, so `import tag2mask` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tag2mask.api import evaluate as evaluate
    from tag2mask.api import export as export
    from tag2mask.api import export_model as export_model
    from tag2mask.api import import_masks as import_masks
    from tag2mask.api import label as label
    from tag2mask.api import predict as predict
    from tag2mask.api import train as train
    from tag2mask.config.recipe import Recipe as Recipe
    from tag2mask.config.recipe import load_recipe as load_recipe
    from tag2mask.errors import Tag2MaskError as Tag2MaskError
    from tag2mask.evaluation.tune_run import tune as tune
    from tag2mask.inference.segmenter import Segmenter as Segmenter
    from tag2mask.inference.segmenter import load as load
    from tag2mask.types import BACKGROUND as BACKGROUND
    from tag2mask.types import IGNORE as IGNORE
    from tag2mask.types import ImageProgress as ImageProgress
    from tag2mask.types import Prediction as Prediction
    from tag2mask.types import Report as Report
    from tag2mask.types import StepProgress as StepProgress
    from tag2mask.version import __version__ as __version__
else:
    from tag2mask.lazy import attach

    __getattr__, __dir__, __all__ = attach(__name__)
