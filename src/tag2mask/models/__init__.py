"""Networks and their parts: `from tag2mask.models import GatedPyramid`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tag2mask.models.classifier import ClassActivationHead as ClassActivationHead
    from tag2mask.models.gated_pyramid import GatedPyramid as GatedPyramid
    from tag2mask.models.heads import AffinityHead as AffinityHead
    from tag2mask.models.segformer_head import SegFormerHead as SegFormerHead
else:
    from tag2mask.lazy import attach

    __getattr__, __dir__, __all__ = attach(__name__)
