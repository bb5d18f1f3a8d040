"""1Stage: one network, classified by its masks and trained on them.

Paper: Single-Stage Semantic Segmentation from Image Labels (arXiv 2005.08104).

1. A decoder over deep and shallow features, mixed by a stochastic gate, scores every class at every
   cell; with a background of constant score they share each cell in a softmax (softmaxed CAM).
2. nGWP: a class of the image is scored by the mean of its scores under its own mask; a focal
   penalty asks for masks that are not too small. Classification is the loss of this sum.
3. PAMR moves the masks to the edges of the image; pixels of which one class alone is sure become
   labels, and from a quarter of the training on the decoder learns them.
4. Masks at inference: mean over scales and mirror images, background cubed, classes by their score
   (the protocol `onestage` of prediction).

Departures: the width of the decoder is a setting; crop padding is neither refined across nor
labeled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import Fraction, MethodConfig, StepsOrFraction, resolve_steps
from tag2mask.errors import RecipeError
from tag2mask.functional.cam import upsample
from tag2mask.functional.pooling import size_penalty, softmax_masks, weighted_score
from tag2mask.functional.pseudo_label import fill_padding
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.onestage.gated_decoder import GatedDecoder
from tag2mask.methods.onestage.protocol import PixelShares
from tag2mask.methods.onestage.self_label import (
    balanced_label_loss,
    is_complete,
    pixel_counts,
    self_label,
)
from tag2mask.methods.protocol import InferenceProtocol
from tag2mask.models.base import Backbone
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch

BACKGROUND_SCORE = 1.0
"""Score of background beside those of the classes."""


class OneStageConfig(MethodConfig):
    """Weights and switches; the defaults are the paper's, its schedule as a fraction."""

    name: str = "onestage"
    gate: bool = True
    """Draw the shallow path at random while training; off: always mix both (Table 1)."""
    psi: Fraction = 0.3
    """Share of the shallow path."""
    focal: bool = True
    """Penalise small masks in the classification score (Table 1)."""
    focal_power: float = Field(default=3.0, ge=0)
    """Exponent of that penalty; larger spares masks of middling size."""
    focal_floor: Annotated[float, Field(gt=0)] = 0.01
    """Keeps the penalty of an empty mask finite."""
    mask_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss of the network's own masks; 0 switches it off."""
    mask_from: StepsOrFraction = 0.21
    """Classification alone until here (5 of 24 epochs)."""
    refine: bool = True
    """Refine masks before labels are made of them (PAMR in the paper); needs a refiner."""
    share: Fraction = 0.6
    """Of its largest score what a class must exceed at a pixel to be sure there."""
    background_share: Fraction = 0.7
    """Likewise for background."""
    least: Fraction = 0.2
    """What every class must exceed."""
    shallow: Annotated[int, Field(ge=1, le=3)] = 1
    """Map of the backbone, f1 to f3, that gives shallow features and the grid of the masks."""
    width: int = Field(default=256, ge=1)
    """Channels of the decoder."""
    dilations: tuple[Annotated[int, Field(ge=1)], ...] = (6, 12, 18)
    """Of the 3 x 3 layers over the last map, in cells."""


class OneStage(Method):
    """Softmaxed class maps, their normalized pooling, and labels from the maps themselves."""

    Config = OneStageConfig
    config: OneStageConfig
    protocol: ClassVar[InferenceProtocol] = PixelShares()

    def __init__(
        self,
        config: OneStageConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        if config.mask_weight and config.refine and refiner is None:
            raise RecipeError(
                "method.refine: onestage needs a refiner for its labels; name one (the paper's is "
                "pamr), or set it to false"
            )
        self.decoder = GatedDecoder(
            backbone.channels[config.shallow - 1],
            backbone.channels[-1],
            num_foreground,
            width=config.width,
            dilations=config.dilations,
            psi=config.psi,
            stochastic=config.gate,
        )

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Classification by masks, and from `mask_from` on the network's own labels."""
        config = self.config
        score = self._score(self.backbone.normalize(batch.image))
        masks = softmax_masks(score, BACKGROUND_SCORE)
        logits = self._classified(score, masks)
        losses = {"classification": F.multilabel_soft_margin_loss(logits, batch.tags)}
        self.monitor["background"] = masks[:, 0].detach().mean()
        if config.mask_weight and step >= resolve_steps(config.mask_from, self.steps):
            label = self._label(batch, masks.detach())
            full = upsample(_with_background(score), label.shape[-2:])
            loss = balanced_label_loss(full, label, batch.tags)
            losses["mask"] = config.mask_weight * loss
            counts = pixel_counts(label, full.shape[1])
            self.monitor["ignored_pixels"] = (label == IGNORE).float().mean()
            self.monitor["complete_photos"] = is_complete(counts, batch.tags).mean()
        return losses

    @torch.no_grad()
    def _label(self, batch: Batch, masks: Tensor) -> Tensor:
        """Sure pixels of (N, C, h, w) masks, refined at their own size; (N, H, W)."""
        config = self.config
        if config.refine:
            assert self.refiner is not None
            image = upsample(fill_padding(batch.image, batch.valid).float(), masks.shape[-2:])
            masks = self.refiner(image, masks)
        return self_label(
            upsample(masks, batch.image.shape[-2:]),
            batch.tags,
            batch.valid,
            share=config.share,
            background_share=config.background_share,
            min_score=config.least,
        )

    def _score(self, image: Tensor) -> Tensor:
        """(N, F, h, w) scores of normalized images at the grid of the shallow map."""
        maps = self.backbone(image).maps
        score: Tensor = self.decoder(maps[self.config.shallow - 1], maps[-1])
        return score.float()  # shares and their logarithms need it

    def _classified(self, score: Tensor, masks: Tensor) -> Tensor:
        """(N, F) logits."""
        logits = weighted_score(score, masks[:, 1:])
        if not self.config.focal:
            return logits
        return logits + size_penalty(masks[:, 1:], self.config.focal_power, self.config.focal_floor)

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """The share of each class in each cell; what is left is background."""
        score = self._score(image)
        masks = softmax_masks(score, BACKGROUND_SCORE)
        return CamOutput(self._classified(score, masks), masks[:, 1:])

    def segmentation(self, image: Tensor) -> Tensor:
        """Scores whose softmax the shares are."""
        return _with_background(self._score(image))


def _with_background(score: Tensor) -> Tensor:
    return torch.cat([torch.full_like(score[:, :1], BACKGROUND_SCORE), score], dim=1)
