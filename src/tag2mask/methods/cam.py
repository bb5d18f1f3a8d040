"""Plain class activation maps: the baseline that every paper starts from.

1. A backbone's last map is pooled and classified with a bias-free 1 x 1 layer; the loss is
soft-margin.
2. The same layer on the unpooled map gives the class activation map.

Paper: Zhou et al., Learning Deep Features for Discriminative Localization; the row "Our Baseline"
    of RML, Table 1. With the pooling `gpp`, the row of 54.2 of AEFT's supplement, section 1; with
    `ngwp`, its comparison with softmaxed maps (section 1.5).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import MethodConfig
from tag2mask.methods.base import CamOutput, Method
from tag2mask.models.base import Backbone
from tag2mask.models.classifier import ClassActivationHead, Pooling
from tag2mask.models.gated_pyramid import GPPConfig
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch

PRESENT = 0.5
"""Class probability above which a class counts as present where an image has no tags."""


class CAMConfig(MethodConfig):
    """The baseline chooses how a map becomes one number."""

    name: str = "cam"
    pooling: Pooling = "gap"
    """gap: mean of the map; gmp: maximum of each channel before the classifier; gpp: the map
    weighed by a gated pyramid of its own means; ngwp: mean under softmax masks."""
    gpp: GPPConfig = GPPConfig()
    """Switches of the pooling gpp."""
    width: int = Field(default=0, ge=0)
    """Channels of a layer with ReLU before the classifier; 0: none (AEFT: 256)."""


class CAM(Method):
    """Classification alone."""

    Config = CAMConfig
    config: CAMConfig

    def __init__(
        self,
        config: CAMConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self.head = ClassActivationHead(
            backbone.channels[-1], num_foreground, config.pooling, config.gpp, config.width
        )

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Soft-margin classification loss, mean over classes and batch."""
        logits = self.class_logits(self.backbone.normalize(batch.image))
        return {"classification": F.multilabel_soft_margin_loss(logits, batch.tags)}

    def class_logits(self, image: Tensor) -> Tensor:
        """Logits of this network, also where a method made of it sees more while labeling."""
        return CAM.compute_cam(self, image).logits

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """One encoder pass and the head."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))
