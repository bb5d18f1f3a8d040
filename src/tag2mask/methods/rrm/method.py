"""RRM: reliable region mining, an end-to-end method with labels on few, reliable pixels.

Paper: Reliability Does Matter: An End-to-End Weakly Supervised Semantic Segmentation Approach
    (Zhang et al., AAAI 2020, https://arxiv.org/abs/1911.08039).

1. In the first half of training, train only the classifier.
2. Then refine multi-scale CAM by a dense CRF against two strengths of background. Pixels that are
   confident after refinement and have a high CAM become pseudo-labels; the rest is ignored.
3. Train a decoder on the same features with these labels: cross-entropy over background plus
   cross-entropy over foreground.
4. A dense-energy loss over all pixels, labeled or not, makes similar neighbors agree.
5. L = L_cls + L_ce + L_energy. The decoder's masks are the segmentation.

Departs:
    - The CAM is normalized by minimum and maximum as everywhere here, not by the maximum alone
      (after ReLU the minimum is nearly always 0).
    - There is no dropout before the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.config.schema import (
    Fraction,
    MethodConfig,
    Scales,
    StepsOrFraction,
    Width,
    resolve_steps,
)
from tag2mask.errors import RecipeError
from tag2mask.functional.cam import multi_scale_cam, upsample
from tag2mask.functional.precision import LabelPrecision
from tag2mask.functional.pseudo_label import select_present_classes
from tag2mask.functional.segmentation import segmentation_loss
from tag2mask.methods.base import CamOutput, Method, labeling
from tag2mask.methods.protocol import InferenceProtocol, MultiScaleDecoder
from tag2mask.methods.rrm.reliable_label import reliable_label
from tag2mask.models.base import Backbone
from tag2mask.models.classifier import ClassActivationHead, Pooling
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch


class RRMConfig(MethodConfig):
    """The defaults are the paper's."""

    name: str = "rrm"
    pooling: Pooling = "gap"
    """How a class map becomes a logit (as in the method `cam`)."""
    warmup: StepsOrFraction = 0.5
    """Train only the classifier until this point."""
    alpha_high: PositiveFloat = 4.0
    """Exponent of the background (1 - maximum of the CAM) that confident foreground must exceed."""
    alpha_low: PositiveFloat = 32.0
    """Exponent of the background that must still exceed the CAM of confident background."""
    confidence: Fraction = 0.8
    """Lowest refined score of a reliable pixel."""
    top_fraction: Fraction = 0.4
    """Fraction of a class's pixels, those with the highest CAM, that can be reliable; 1: all."""
    background_threshold: Fraction = 0.8
    """Background is reliable where (1 - maximum of the CAM)^alpha_low exceeds this."""
    segmentation_weight: PositiveFloat = 1.0
    """Weight of the decoder's cross-entropy, background plus foreground."""
    energy_weight: float = Field(default=1.0, ge=0)
    """Weight of the dense-energy loss, multiplied by its 1e-7; 0: cross-entropy only."""
    decoder_width: Width = 512
    """Channels between the decoder's two layers."""
    dilation: int = Field(default=12, ge=1, le=256)
    """Dilation of the decoder's 3 x 3 convolutions in grid positions (12 at stride 8)."""
    label_scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """Scales of the CAM that pseudo-labels are made from."""
    label_precision: LabelPrecision = "auto"
    """Arithmetic of that CAM, which needs no gradient; auto: bf16 where the processor computes it
    fast."""


class RRM(Method):
    """Classifier and decoder on one backbone; the CAM labels pixels for the decoder."""

    Config = RRMConfig
    config: RRMConfig
    protocol: ClassVar[InferenceProtocol] = MultiScaleDecoder()

    def __init__(
        self,
        config: RRMConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        if refiner is None:
            raise RecipeError(
                "method.name: rrm needs a refiner for its pseudo-labels; set refiner.name, for "
                "example to dense_crf"
            )
        width = backbone.channels[-1]
        self.head = ClassActivationHead(width, num_foreground, config.pooling)
        dilation, hidden, classes = config.dilation, config.decoder_width, num_foreground + 1
        self.decoder = nn.Sequential(
            nn.Conv2d(width, hidden, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv2d(hidden, classes, 3, padding=dilation, dilation=dilation),
        )

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the losses of Specification 4.7; during warm-up only the classification."""
        config = self.config
        image = self.backbone.normalize(batch.image)
        features = self.backbone(image).maps[-1]
        logits, cam = (part.float() for part in self.head(features))
        losses = {"classification": F.multilabel_soft_margin_loss(logits, batch.tags)}
        if step < resolve_steps(config.warmup, self.steps):
            return losses
        label = self._label(batch, image, cam.detach())
        scores = self.decoder(features).float()
        loss = 2 * segmentation_loss(upsample(scores, label.shape[-2:]), label)
        self.monitor["segmentation"] = loss.detach()
        self.monitor["ignored_pixels"] = (label == IGNORE).float().mean()
        losses["segmentation"] = config.segmentation_weight * loss
        if config.energy_weight:
            # Importing its lattice takes long; warm-up and inference do not need it.
            from tag2mask.functional.energy import dense_energy_loss

            energy = dense_energy_loss(scores.softmax(dim=1), batch.image, label, batch.valid)
            losses["energy"] = config.energy_weight * energy
        return losses

    @torch.no_grad()
    def _label(self, batch: Batch, image: Tensor, cam: Tensor) -> Tensor:
        """Label the (N, H, W) reliable pixels and ignore the rest; the CAM of scale 1 is reused."""
        config = self.config
        assert self.refiner is not None

        def compute_view_cam(view: Tensor) -> Tensor:
            return self.head.cam(self.backbone(view).maps[-1]).float()

        with labeling(self.backbone, config.label_precision, image.device.type):
            selected = select_present_classes(batch.tags, batch.max_tags)
            selected_cam = multi_scale_cam(
                compute_view_cam,
                image,
                config.label_scales,
                flip=False,
                known_cam=cam,
                class_indices=selected.class_indices,
            )
        return reliable_label(
            batch.image,
            selected_cam,
            selected,
            batch.valid,
            self.refiner,
            alphas=(config.alpha_high, config.alpha_low),
            confidence=config.confidence,
            share=config.top_fraction,
            background=config.background_threshold,
        )

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Run the encoder and the classifier once, without the decoder."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))

    def segmentation(self, image: Tensor) -> Tensor:
        """Run the encoder and the decoder once."""
        logits: Tensor = self.decoder(self.backbone(image).maps[-1])
        return logits
