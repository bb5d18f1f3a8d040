"""CAM: plain class activation maps, the baseline of every paper.

Paper: Learning Deep Features for Discriminative Localization (Zhou et al., CVPR 2016,
    https://arxiv.org/abs/1512.04150). It is the row "Our Baseline" of RML, Table 1. With pooling
    `gpp` it is the row with 54.2 mIoU in AEFT's supplement, section 1; with `ngwp` it is the
    comparison with softmax maps in section 1.5.

1. Pool the backbone's last feature map and classify it with a bias-free 1 x 1 convolution. The loss
   is multi-label soft margin.
2. Apply the same layer to the unpooled feature map: the result is the class activation map.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import Fraction, MethodConfig
from tag2mask.methods.base import CamOutput, Method
from tag2mask.models.base import Backbone
from tag2mask.models.classifier import ClassActivationHead, Pooling
from tag2mask.models.gated_pyramid import GPPConfig
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch

PRESENT = 0.5
"""Class probability above which a class counts as present in an untagged image."""


class CAMConfig(MethodConfig):
    """Pooling and width of the classifier."""

    name: str = "cam"
    pooling: Pooling = "gap"
    """How a class map becomes a logit. gap: mean of the map; gmp: maximum of each feature channel,
    then the classifier; gpp: gated pyramid pooling (AEFT); ngwp: normalized global weighted pooling
    under softmax masks (1Stage)."""
    gpp: GPPConfig = GPPConfig()
    """Options of the pooling gpp."""
    width: int = Field(default=0, ge=0, le=8192)
    """Channels of an extra layer with ReLU before the classifier; 0 omits it (AEFT: 256)."""
    xavier: bool = False
    """Start the classifier from Xavier's rule (PSA); with `width` it always does."""
    dropout: Fraction = 0.0
    """Probability of dropping a channel before the classifier in training (PSA: 0.5)."""


class CAM(Method):
    """An image classifier whose last layer yields class activation maps."""

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
            backbone.channels[-1],
            num_foreground,
            config.pooling,
            config.gpp,
            config.width,
            xavier=config.xavier,
            dropout=config.dropout,
        )

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the soft-margin classification loss, the mean over classes and batch."""
        logits = self.class_logits(self.backbone.normalize(batch.image))
        return {"classification": F.multilabel_soft_margin_loss(logits, batch.tags)}

    def class_logits(self, image: Tensor) -> Tensor:
        """Compute the classifier's logits, even when a subclass overrides `compute_cam`."""
        return CAM.compute_cam(self, image).logits

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Run the encoder and the head once."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))
