"""1Stage: one network that is classified through its masks and trained on them.

Paper: Single-Stage Semantic Segmentation from Image Labels (Araslanov and Roth, CVPR 2020,
    https://arxiv.org/abs/2005.08104).

1. A decoder mixes deep and shallow features by a stochastic gate and scores every class at every
   pixel of its grid. A softmax over these scores and a constant background score gives the masks.
2. Normalized global weighted pooling (nGWP): average the scores of a class under its own mask. A
   focal penalty discourages masks that are too small. Their sum is the class logit.
3. PAMR aligns the masks with image edges. Pixels with exactly one confident class become labels,
   and after the first fifth of the training the decoder learns them.
4. At inference, average the masks over scales and flips, cube the background, and select classes by
   their score (inference protocol `onestage`).

Departs:
    - The decoder's width is configurable.
    - Crop padding is neither labeled nor used in refinement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import (
    Dilation,
    Fraction,
    MethodConfig,
    StepsOrFraction,
    Width,
    resolve_steps,
)
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
"""Constant score of the background in the softmax over classes."""


class OneStageConfig(MethodConfig):
    """The defaults are the paper's, with its schedule as a fraction of all steps."""

    name: str = "onestage"
    stochastic_gate: bool = True
    """Use the shallow features at random in training; false: always mix both (Table 1)."""
    psi: Fraction = 0.3
    """Fraction of the shallow features in the mix."""
    focal: bool = True
    """Penalize small masks in the class logits (Table 1)."""
    focal_power: float = Field(default=3.0, ge=0)
    """Exponent of that penalty; larger penalizes medium-sized masks less."""
    focal_floor: Annotated[float, Field(gt=0)] = 0.01
    """Keeps the penalty of an empty mask finite."""
    mask_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on the network's own masks; 0 switches it off."""
    mask_from: StepsOrFraction = 0.21
    """Train only the classification until this point (5 of 24 epochs)."""
    refine: bool = True
    """Refine masks before they become labels (PAMR in the paper); needs a refiner."""
    foreground_peak_fraction: Fraction = 0.6
    """A class is confident at a pixel where its score exceeds this fraction of its maximum."""
    background_peak_fraction: Fraction = 0.7
    """The same fraction for background."""
    min_score: Fraction = 0.2
    """A confident class must also exceed this score."""
    shallow: Annotated[int, Field(ge=1, le=3)] = 1
    """Feature map of the backbone, f1 to f3, that provides shallow features and the masks' grid."""
    width: Width = 256
    """Channels of the decoder."""
    dilations: tuple[Dilation, ...] = Field(default=(6, 12, 18), min_length=1, max_length=64)
    """Dilations of the 3 x 3 convolutions over the last feature map, in grid positions."""


class OneStage(Method):
    """Softmax masks, normalized pooling under them, and labels made from them."""

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
                "method.refine: onestage needs a refiner for its labels; set refiner.name (pamr in "
                "the paper), or set method.refine to false"
            )
        self.decoder = GatedDecoder(
            backbone.channels[config.shallow - 1],
            backbone.channels[-1],
            num_foreground,
            width=config.width,
            dilations=config.dilations,
            psi=config.psi,
            stochastic=config.stochastic_gate,
        )

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the classification loss and, from `mask_from` on, the loss on its own labels."""
        config = self.config
        score = self._score(self.backbone.normalize(batch.image))
        masks = softmax_masks(score, BACKGROUND_SCORE)
        logits = self._class_logits(score, masks)
        losses = {"classification": F.multilabel_soft_margin_loss(logits, batch.tags)}
        self.monitor["background"] = masks[:, 0].detach().mean()
        if config.mask_weight and step >= resolve_steps(config.mask_from, self.steps):
            label = self._label(batch, masks.detach())
            full = upsample(_with_background(score), label.shape[-2:])
            loss = balanced_label_loss(full, label, batch.tags)
            losses["mask"] = config.mask_weight * loss
            counts = pixel_counts(label, full.shape[1])
            self.monitor["ignored_pixels"] = (label == IGNORE).float().mean()
            self.monitor["complete_images"] = is_complete(counts, batch.tags).mean()
        return losses

    @torch.no_grad()
    def _label(self, batch: Batch, masks: Tensor) -> Tensor:
        """Make (N, H, W) labels from (N, C, h, w) masks, refined at the masks' own size."""
        config = self.config
        if config.refine:
            assert self.refiner is not None
            image = upsample(fill_padding(batch.image, batch.valid).float(), masks.shape[-2:])
            masks = self.refiner(image, masks)
        return self_label(
            upsample(masks, batch.image.shape[-2:]),
            batch.tags,
            batch.valid,
            share=config.foreground_peak_fraction,
            background_share=config.background_peak_fraction,
            min_score=config.min_score,
        )

    def _score(self, image: Tensor) -> Tensor:
        """Compute the (N, F, h, w) scores of normalized images on the grid of the shallow map."""
        maps = self.backbone(image).maps
        score: Tensor = self.decoder(maps[self.config.shallow - 1], maps[-1])
        return score.float()  # softmax and logarithms need float32

    def _class_logits(self, score: Tensor, masks: Tensor) -> Tensor:
        """Compute the (N, F) class logits: pooled scores and, with `focal`, the size penalty."""
        logits = weighted_score(score, masks[:, 1:])
        if not self.config.focal:
            return logits
        return logits + size_penalty(masks[:, 1:], self.config.focal_power, self.config.focal_floor)

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Compute class logits and softmax masks; the background is 1 minus their sum."""
        score = self._score(image)
        masks = softmax_masks(score, BACKGROUND_SCORE)
        return CamOutput(self._class_logits(score, masks), masks[:, 1:])

    def segmentation(self, image: Tensor) -> Tensor:
        """Compute the scores, background first, whose softmax gives the masks."""
        return _with_background(self._score(image))


def _with_background(score: Tensor) -> Tensor:
    return torch.cat([torch.full_like(score[:, :1], BACKGROUND_SCORE), score], dim=1)
