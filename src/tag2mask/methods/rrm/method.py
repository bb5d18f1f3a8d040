"""RRM: few reliable pixels teach a decoder, end to end, and the image's own edges teach the rest.

Paper: Reliability Does Matter: An End-to-End Weakly Supervised Semantic Segmentation Approach
    (Zhang et al., AAAI 2020, arXiv 1911.08039).

1. In the first half of training the network only learns the tags.
2. Then class activation maps at several scales, refined by a dense CRF against two strengths of
   background, give pseudo-labels; only pixels that are sure of their class and strong in its map
   are kept, the rest is ignored.
3. A decoder on the same features learns them: cross-entropy over background plus over foreground.
4. A dense energy over all pixels makes neighbors that look alike agree, labeled or not.
5. L = L_cls + L_ce + L_energy. The decoder's masks are the segmentation.

Departures: maps are normalized by minimum and maximum as elsewhere here, not by the maximum alone
(after ReLU the minimum is nearly always 0); no channels are dropped before the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.config.schema import Fraction, MethodConfig, StepsOrFraction, resolve_steps
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
    """Weights and switches; the defaults are the paper's."""

    name: str = "rrm"
    pooling: Pooling = "gap"
    """How the class map becomes a logit."""
    warmup: StepsOrFraction = 0.5
    """Classification alone until here."""
    alpha_high: PositiveFloat = 4.0
    """Exponent of the background that sure foreground must beat."""
    alpha_low: PositiveFloat = 32.0
    """Exponent of the background that must still win where background is sure."""
    confidence: Fraction = 0.8
    """Least refined score of a reliable pixel."""
    share: Fraction = 0.4
    """Strongest part of the pixels its evidence gives to a class that is reliable; 1: all."""
    background: Fraction = 0.8
    """Background is reliable where (1 - strongest evidence)^alpha_low exceeds this."""
    segmentation_weight: PositiveFloat = 1.0
    """Weight of the decoder's cross-entropy, background plus foreground."""
    energy_weight: float = Field(default=1.0, ge=0)
    """Weight of the dense energy, on top of its 1e-7; 0: cross-entropy alone."""
    decoder_width: int = Field(default=512, ge=1)
    """Channels between the decoder's two layers."""
    dilation: int = Field(default=12, ge=1)
    """Dilation of the decoder's 3 x 3 layers (12 at stride 8)."""
    label_scales: tuple[PositiveFloat, ...] = Field(default=(1.0, 0.5, 1.5, 2.0), min_length=1)
    """Scales of the maps that make pseudo-labels."""
    label_precision: LabelPrecision = "auto"
    """Arithmetic of those maps, which need no gradient."""


class RRM(Method):
    """Classifier and decoder on one backbone, the first teaching the second."""

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
            raise RecipeError("method.name: rrm needs a refiner for its pseudo-labels; name one")
        width = backbone.channels[-1]
        self.head = ClassActivationHead(width, num_foreground, config.pooling)
        reach = config.dilation
        self.decoder = nn.Sequential(
            nn.Conv2d(width, config.decoder_width, 3, padding=reach, dilation=reach),
            nn.ReLU(),
            nn.Conv2d(config.decoder_width, num_foreground + 1, 3, padding=reach, dilation=reach),
        )

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Specification 4.7; during warm-up only the classification is computed."""
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
            # Its lattice takes a while to import; warm-up and predictions do without.
            from tag2mask.functional.energy import dense_energy_loss

            energy = dense_energy_loss(scores.softmax(dim=1), batch.image, label, batch.valid)
            losses["energy"] = config.energy_weight * energy
        return losses

    @torch.no_grad()
    def _label(self, batch: Batch, image: Tensor, cam: Tensor) -> Tensor:
        """(N, H, W) reliable pixels, the rest ignored; scale 1 is not computed again."""
        config = self.config
        assert self.refiner is not None

        def cam_of(view: Tensor) -> Tensor:
            return self.head.cam(self.backbone(view).maps[-1]).float()

        with labeling(self.backbone, config.label_precision, image.device.type):
            selected = select_present_classes(batch.tags, batch.max_tags)
            selected_cam = multi_scale_cam(
                cam_of,
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
            share=config.share,
            background=config.background,
        )

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """One encoder pass and the classifier; the decoder stays idle."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))

    def segmentation(self, image: Tensor) -> Tensor:
        """One encoder pass and the decoder."""
        logits: Tensor = self.decoder(self.backbone(image).maps[-1])
        return logits
