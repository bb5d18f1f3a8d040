"""Supervised segmentation: the last stage, a network that learns from masks.

1. A decoder on the backbone's maps learns the classes of single pixels, from pseudo-labels of
   earlier stages (`data.labels`) or from true masks, which gives the bound that tags are measured
   against.
2. Its masks are cut from the decoder's scores; no tag is read, neither in training nor afterwards.

Paper: SegFormer (arXiv 2105.15203), section 3.2; DeepLab v2 (arXiv 1606.00915), section 3.2: the
    networks that the papers of this field train last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from tag2mask.config.schema import MethodConfig
from tag2mask.functional.cam import upsample
from tag2mask.methods.base import CamOutput, Method, labeled_pixels
from tag2mask.methods.protocol import InferenceProtocol, MultiScaleDecoder
from tag2mask.methods.supervised.deeplab_head import DeepLabHead
from tag2mask.methods.supervised.losses import pixel_loss
from tag2mask.models.base import Backbone
from tag2mask.models.segformer_head import SegFormerHead
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch

_SUREST = 1e-6
"""Probabilities are told apart from 0 and 1 by this much when they become logits."""


class SupervisedConfig(MethodConfig):
    """Which decoder, and its size."""

    name: str = "supervised"
    head: Literal["segformer", "aspp"] = "segformer"
    """segformer: all four maps, for transformers; aspp: the last map at several dilations, for
    convolutional networks of stride 8."""
    decoder_width: int = Field(default=256, ge=1)
    """Channels of the decoder (segformer)."""
    decoder_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Chance that a channel of the decoder is left out in training (segformer)."""
    dilations: tuple[int, ...] = Field(default=(6, 12, 18, 24), min_length=1)
    """Dilation of each branch, in cells (aspp)."""


class Supervised(Method):
    """A backbone and a decoder."""

    Config = SupervisedConfig
    protocol: ClassVar[InferenceProtocol] = MultiScaleDecoder()
    reads_masks = True

    def __init__(
        self,
        config: SupervisedConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        classes = num_foreground + 1
        self.decoder: SegFormerHead | DeepLabHead
        if config.head == "segformer":
            self.decoder = SegFormerHead(
                backbone.channels, classes, config.decoder_width, config.decoder_dropout
            )
        else:
            self.decoder = DeepLabHead(backbone.channels[-1], classes, config.dilations)

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Cross-entropy of every labeled pixel, at the size of the crop.

        Raises:
            RecipeError: If the images come without labels.
        """
        mask = labeled_pixels(batch, "supervised")
        logits = self.segmentation(self.backbone.normalize(batch.image)).float()
        self.monitor["ignored_pixels"] = (mask == IGNORE).float().mean()
        return {"segmentation": pixel_loss(upsample(logits, mask.shape[-2:]), mask)}

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Pixel probabilities; a class of an image is as likely as its likeliest cell.

        Departs: there is no classifier whose opinion this could be. At a threshold of 0.5 the gate
            `predicted` keeps the classes that own a cell more likely than not.
        """
        cam = self.segmentation(image).float().softmax(dim=1)[:, 1:]
        return CamOutput(cam.amax(dim=(2, 3)).logit(eps=_SUREST), cam)

    def segmentation(self, image: Tensor) -> Tensor:
        """One encoder pass and the decoder."""
        logits: Tensor = self.decoder(self.backbone(image).maps)
        return logits
