"""Supervised segmentation: the final stage, a network that learns from masks.

Paper: SegFormer (https://arxiv.org/abs/2105.15203), section 3.2, and DeepLab v1 and v2
    (https://arxiv.org/abs/1606.00915, section 3.2): the networks that WSSS papers train last.

1. Train a decoder on the backbone's feature maps with pixel labels: pseudo-labels of an earlier
   stage (`data.labels`), or true masks, which give the upper bound for training from tags.
2. The decoder's scores are the masks. Neither training nor inference reads tags.

Departs:
    - There is no image classifier. The class probability of an image is that of its most probable
      pixel, so with `predict.class_threshold` 0.5 the class source `classifier` selects the classes
      that are more likely than not at some pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from tag2mask.config.schema import Dilation, MethodConfig, Width
from tag2mask.functional.cam import upsample
from tag2mask.methods.base import CamOutput, Method, labeled_pixels
from tag2mask.methods.protocol import InferenceProtocol, MultiScaleDecoder
from tag2mask.methods.supervised.deeplab_head import DeepLabHead
from tag2mask.methods.supervised.large_fov_head import LargeFOVHead
from tag2mask.methods.supervised.losses import pixel_loss
from tag2mask.models.base import Backbone
from tag2mask.models.segformer_head import SegFormerHead
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch

_LOGIT_EPS = 1e-6
"""Probabilities are clamped to [eps, 1 - eps] before they become logits."""


class SupervisedConfig(MethodConfig):
    """Type and size of the decoder."""

    name: str = "supervised"
    head: Literal["segformer", "aspp", "largefov"] = "segformer"
    """Decoder. segformer: reads all four feature maps, for transformers; aspp: reads the last map
    at several dilations, for convolutional networks of stride 8; largefov: reads the last map by
    two convolutions of dilation 12 (AEFT)."""
    train_all: bool = False
    """Train also the layers that the backbone keeps fixed, all but its normalization."""
    decoder_width: Width = 256
    """Channels of the decoder (segformer; largefov: 512 in AEFT)."""
    decoder_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout probability of a decoder channel in training (segformer)."""
    dilations: tuple[Dilation, ...] = Field(default=(6, 12, 18, 24), min_length=1, max_length=64)
    """Dilation of each branch, in grid positions (aspp)."""


class Supervised(Method):
    """A backbone and a decoder, trained with masks."""

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
        channels, width = backbone.channels, config.decoder_width
        self.decoder: SegFormerHead | DeepLabHead | LargeFOVHead
        if config.head == "segformer":
            self.decoder = SegFormerHead(channels, classes, width, config.decoder_dropout)
        elif config.head == "aspp":
            self.decoder = DeepLabHead(channels[-1], classes, config.dilations)
        else:
            self.decoder = LargeFOVHead(channels[-1], classes, width)
        if config.train_all:
            for layer in backbone.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.requires_grad_(True)

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the cross-entropy of all labeled pixels at the size of the crop.

        Raises:
            RecipeError: If the images have no labels.
        """
        mask = labeled_pixels(batch, "supervised")
        logits = self.segmentation(self.backbone.normalize(batch.image)).float()
        self.monitor["ignored_pixels"] = (mask == IGNORE).float().mean()
        return {"segmentation": pixel_loss(upsample(logits, mask.shape[-2:]), mask)}

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Return pixel probabilities as CAM, and the logit of each class's most probable pixel."""
        cam = self.segmentation(image).float().softmax(dim=1)[:, 1:]
        return CamOutput(cam.amax(dim=(2, 3)).logit(eps=_LOGIT_EPS), cam)

    def segmentation(self, image: Tensor) -> Tensor:
        """Run the encoder and the decoder once."""
        logits: Tensor = self.decoder(self.backbone(image).maps)
        return logits
