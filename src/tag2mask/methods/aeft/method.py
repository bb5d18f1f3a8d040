"""AEFT: adversarial erasing with triplets and gated pyramid pooling (GPP).

Paper: Adversarial Erasing Framework via Triplet with Gated Pyramid Pooling Layer for Weakly
    Supervised Semantic Segmentation (Yoon et al., ECCV 2022,
    https://github.com/KAIST-vilab/AEFT), and its supplement.

1. GPP: pool each class map over a pyramid of means and blend the levels by gates into an attention.
   A class is scored where map and attention agree.
2. The positive is the image with its most confident regions softly erased. Attraction makes its
   attention contain as much of each class as the anchor's, so the map covers the whole object.
3. The anchor-low is the anchor's attention outside the CAM. The negative is an image that shares no
   class with the anchor. The repulsion of both keeps the map from spreading beyond objects.
4. L = L_cls + 0.2 L_att + 0.15 L_rep; only L_cls until `start`.

Labels are made from the class maps without attention, added over scales 0.5, 1, 1.5, 2 and flips.
Specification 4.1 decides what the paper leaves open.

Departs:
    - The two flips are combined by their maximum, not their sum, as in every method here.
    - Negatives are drawn from all images of the batch that qualify; untagged images take no part.
    - The paper's 52.5 mIoU without GPP is read as follows: the mean scores the classes, and the
      embeddings still come from the gated pyramid (supplement, section 1.3: the two cannot be fully
      decoupled). Its `direct` takes the embeddings from the class map itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import (
    LARGEST_BATCH,
    MOST_IMAGES,
    Fraction,
    MethodConfig,
    StepsOrFraction,
    resolve_steps,
)
from tag2mask.functional.cam import normalize_cam
from tag2mask.functional.reduction import first_row, rows_of_ranks
from tag2mask.functional.segmentation import masked_mean
from tag2mask.methods.aeft.losses import (
    erasing_map,
    find_negatives,
    presence_embedding,
    region_embedding,
    repulsion,
)
from tag2mask.methods.base import CamOutput, Method
from tag2mask.models.base import Backbone
from tag2mask.models.classifier import ClassActivationHead
from tag2mask.models.gated_pyramid import GatedPyramid, GPPConfig
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch


class AEFTConfig(MethodConfig):
    """The defaults are the paper's for VOC."""

    name: str = "aeft"
    pooling: Literal["gap", "gpp"] = "gpp"
    """How a class map becomes a logit. gpp: gated pyramid pooling; gap: mean of the map."""
    embedding: Literal["pyramid", "direct"] = "pyramid"
    """What the embeddings average. pyramid: the gated pyramid; direct: the class map (Table 2)."""
    gpp: GPPConfig = GPPConfig()
    """Options of the gated pyramid."""
    width: int = Field(default=256, ge=0, le=8192)
    """Channels of an extra layer with ReLU before the classifier; 0 omits it."""
    start: StepsOrFraction = 0.45
    """Train only the classifier until this point (18 of 40 epochs)."""
    attraction: float = Field(default=0.2, ge=0)
    """Weight of the attraction between anchor and positive; 0 erases nothing."""
    repulsion: float = Field(default=0.15, ge=0)
    """Weight of the repulsion between anchor-low and negative."""
    erase_threshold: Fraction = 0.6
    """t_H: the positive erases pixels whose CAM is at least this; higher erases less (Table A1)."""
    low_threshold: Fraction = 0.2
    """t_L: pixels whose CAM is below this belong to the anchor-low (Table A1)."""
    repulsion_over: Literal["sum", "mean"] = "sum"
    """How the repulsion adds up the classes. sum: the paper's; the other losses are means over the
    classes, so with fewer classes the repulsion counts less beside them. mean: the sum divided by
    the number of classes; a weight of 3 then gives the paper's balance, that of 20 classes."""
    margin: PositiveFloat = 0.5
    """Squared distance beyond which anchor-low and negative are not pushed apart (COCO: 0.1)."""
    min_hard_pairs: int = Field(default=4, ge=0, le=MOST_IMAGES)
    """The repulsion applies only if more pairs than this are closer than the margin."""
    num_classified: int = Field(default=8, ge=0, le=LARGEST_BATCH)
    """Number of images of a batch (of all processes), the first ones, that train the classifier; 0:
    all."""


class AEFT(Method):
    """A classifier, and triplets that control how far its maps spread."""

    Config = AEFTConfig
    config: AEFTConfig

    def __init__(
        self,
        config: AEFTConfig,
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
            xavier=True,
        )
        self.embedder: GatedPyramid | None = None
        if config.pooling == "gap" and self._has_triplets and config.embedding == "pyramid":
            self.embedder = GatedPyramid(num_foreground, config.gpp)

    @property
    def _has_triplets(self) -> bool:
        return bool(self.config.attraction or self.config.repulsion)

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the losses of Specification 4.1; until `start` only the classification."""
        config = self.config
        image = self.backbone.normalize(batch.image)
        cam = self._cam(image)
        attention = None if self.head.pyramid is None else self.head.pyramid(cam)
        losses = {"classification": self._classification(self._logits(cam, attention), batch.tags)}
        if step < resolve_steps(config.start, self.steps):
            return losses
        if attention is None or config.embedding == "direct":
            attention = self._embedding_map(cam)
        if config.attraction:
            losses["attraction"] = config.attraction * self._attraction(
                batch, image, cam, attention
            )
        if config.repulsion:
            loss = self._repulsion(batch.tags, cam, attention)
            share = 1 / self.num_foreground if config.repulsion_over == "mean" else 1.0
            losses["repulsion"] = config.repulsion * share * loss
        return losses

    def _classification(self, logits: Tensor, tags: Tensor) -> Tensor:
        """Average the soft-margin loss over the first `num_classified` images of the full batch."""
        loss = F.multilabel_soft_margin_loss(logits, tags, reduction="none")
        row = first_row(len(tags)) + torch.arange(len(tags), device=tags.device)
        return masked_mean(loss, (row < (self.config.num_classified or math.inf)).to(loss.dtype))

    def _cam(self, image: Tensor) -> Tensor:
        """Compute the (N, F, h, w) signed class maps in float32."""
        return self.head.raw(self.backbone(image).maps[-1]).float()

    def _logits(self, cam: Tensor, attention: Tensor | None) -> Tensor:
        if self.head.pyramid is None or attention is None:
            return cam.mean(dim=(2, 3))
        return self.head.pyramid.score(cam, attention)

    def _embedding_map(self, cam: Tensor) -> Tensor:
        """Return the (N, F, h, w) map that embeddings average."""
        pyramid = self.head.pyramid or self.embedder
        if pyramid is None or self.config.embedding == "direct":
            return cam
        attention: Tensor = pyramid(cam)
        return attention

    def _attraction(self, batch: Batch, image: Tensor, cam: Tensor, attention: Tensor) -> Tensor:
        """Compute the mean absolute difference of the embeddings of anchor and positive.

        The gradient also flows through the erasing map. The map multiplies the normalized image, so
        erased pixels take the mean color.
        """
        size = (image.shape[-2], image.shape[-1])
        weight = erasing_map(cam, batch.tags, batch.max_tags, size, self.config.erase_threshold)
        anchor = presence_embedding(attention, batch.tags)
        positive = presence_embedding(self._embedding_map(self._cam(image * weight)), batch.tags)
        loss = F.l1_loss(positive, anchor)
        self.monitor["attraction"] = loss.detach()
        self.monitor["erased"] = (weight.detach() == 0).float().mean()
        return loss

    def _repulsion(self, tags: Tensor, cam: Tensor, attention: Tensor) -> Tensor:
        """Compute how much anchor-lows are closer to their negatives than the margin allows."""
        config = self.config
        low = normalize_cam(cam.detach().relu()) < config.low_threshold
        negatives = find_negatives(tags)
        result = repulsion(
            region_embedding(attention, tags, low),
            rows_of_ranks(region_embedding(attention, tags))[negatives.image_index],
            negatives.exists,
            config.margin,
            config.min_hard_pairs,
        )
        self.monitor["repulsion"] = result.loss.detach()
        self.monitor["hard_pairs"] = result.hard.detach()
        return result.loss

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Run the encoder and the head once; the CAM contains no attention."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))
