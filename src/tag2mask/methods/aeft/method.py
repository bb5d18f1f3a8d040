"""AEFT: adversarial erasing taught by triplets, over gated pyramid pooling (GPP).

Paper: Adversarial Erasing Framework via Triplet with Gated Pyramid Pooling Layer for Weakly
    Supervised Semantic Segmentation (ECCV 2022), and its supplement.

1. A class map is pooled over a pyramid of its own means, blended by gates into an attention; the
   classes are scored where map and attention agree (GPP).
2. The positive: the image under a soft mask that erases what the map is sure of. Attraction: its
   attention is to hold as much of each class as the anchor's, so the map spreads over whole things.
3. The anchor-low: the anchor's attention away from the evidence. The negative: an image without any
   class of the anchor. Repulsion: they are to be unlike, so the map does not spread beyond things.
4. L = L_cls + 0.2 L_att + 0.15 L_rep; classification alone until `start`.

Maps for labels are the class maps without attention, added over scales 0.5, 1, 1.5, 2 and mirrors.
Section 4.1 of the Specification settles what the paper leaves open.

Departures: mirror images are joined by the larger value, not the sum, as for every method here.
Negatives are drawn among all images of the batch that qualify; images without tags take no part.
The paper's 52.5 without GPP is read as: classes scored by the mean, embeddings still from the gated
pyramid (supplement, section 1.3: the two cannot be fully decoupled); its `direct` takes them from
the class map itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import Fraction, MethodConfig, StepsOrFraction, resolve_steps
from tag2mask.functional.cam import normalize_cam
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
    """Weights and switches; the defaults are the paper's for VOC."""

    name: str = "aeft"
    pooling: Literal["gap", "gpp"] = "gpp"
    """How classes are scored: by the gated pyramid, or by the mean of the map."""
    embedding: Literal["pyramid", "direct"] = "pyramid"
    """What embeddings are averaged from: the gated pyramid, or the class map itself (Table 2)."""
    gpp: GPPConfig = GPPConfig()
    """Switches of the gated pyramid."""
    width: int = Field(default=256, ge=0)
    """Channels of a layer with ReLU before the classifier; 0: none."""
    start: StepsOrFraction = 0.45
    """Classification alone until here (18 of 40 epochs)."""
    attraction: float = Field(default=0.2, ge=0)
    """Weight of the attraction between anchor and positive; 0: nothing is erased."""
    repulsion: float = Field(default=0.15, ge=0)
    """Weight of the repulsion between anchor-low and negative."""
    erase_from: Fraction = 0.6
    """t_H: evidence from which pixels are erased in the positive; larger erases less (Table A1)."""
    low_until: Fraction = 0.2
    """t_L: evidence below which pixels belong to the anchor-low (Table A1)."""
    margin: PositiveFloat = 0.5
    """Squared distance from which anchor-low and negative are left alone; 0.1 on COCO."""
    least_pairs: int = Field(default=4, ge=0)
    """Repulsion only where more pairs than this are nearer than the margin."""
    classified: int = Field(default=8, ge=0)
    """Images of a batch, the first ones, that the classification learns from; 0: all."""


class AEFT(Method):
    """A classifier, and triplets that say how far its maps are to spread."""

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
            backbone.channels[-1], num_foreground, config.pooling, config.gpp, config.width
        )
        self.embedder: GatedPyramid | None = None
        if config.pooling == "gap" and self._has_triplets and config.embedding == "pyramid":
            self.embedder = GatedPyramid(num_foreground, config.gpp)

    @property
    def _has_triplets(self) -> bool:
        return bool(self.config.attraction or self.config.repulsion)

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Specification 4.1; until `start` only the classification is computed."""
        config = self.config
        image = self.backbone.normalize(batch.image)
        cam = self._cam(image)
        attention = None if self.head.pyramid is None else self.head.pyramid(cam)
        seen = slice(config.classified or None)
        logits = self._logits(cam, attention)[seen]
        losses = {"classification": F.multilabel_soft_margin_loss(logits, batch.tags[seen])}
        if step < resolve_steps(config.start, self.steps):
            return losses
        if attention is None or config.embedding == "direct":
            attention = self._embedded(cam)
        if config.attraction:
            losses["attraction"] = config.attraction * self._attraction(
                batch, image, cam, attention
            )
        if config.repulsion:
            losses["repulsion"] = config.repulsion * self._repulsion(batch.tags, cam, attention)
        return losses

    def _cam(self, image: Tensor) -> Tensor:
        """(N, F, h, w) signed class map in full precision."""
        return self.head.raw(self.backbone(image).maps[-1]).float()

    def _logits(self, cam: Tensor, attention: Tensor | None) -> Tensor:
        if self.head.pyramid is None or attention is None:
            return cam.mean(dim=(2, 3))
        return self.head.pyramid.score(cam, attention)

    def _embedded(self, cam: Tensor) -> Tensor:
        """What embeddings are averaged from."""
        pyramid = self.head.pyramid or self.embedder
        if pyramid is None or self.config.embedding == "direct":
            return cam
        attention: Tensor = pyramid(cam)
        return attention

    def _attraction(self, batch: Batch, image: Tensor, cam: Tensor, attention: Tensor) -> Tensor:
        """Mean distance between what anchor and positive hold of each class.

        The gradient also passes through the erasing map. The mask lies over the normalized image,
        so what is erased takes the mean color.
        """
        size = (image.shape[-2], image.shape[-1])
        kept = erasing_map(cam, batch.tags, batch.max_tags, size, self.config.erase_from)
        anchor = presence_embedding(attention, batch.tags)
        positive = presence_embedding(self._embedded(self._cam(image * kept)), batch.tags)
        loss = F.l1_loss(positive, anchor)
        self.monitor["attraction"] = loss.detach()
        self.monitor["erased"] = (kept.detach() == 0).float().mean()
        return loss

    def _repulsion(self, tags: Tensor, cam: Tensor, attention: Tensor) -> Tensor:
        """Nearness of anchors, away from their evidence, to negatives."""
        config = self.config
        low = normalize_cam(cam.detach().relu()) < config.low_until
        negatives = find_negatives(tags)
        pushed = repulsion(
            region_embedding(attention, tags, low),
            region_embedding(attention, tags)[negatives.image_index],
            negatives.exists,
            config.margin,
            config.least_pairs,
        )
        self.monitor["repulsion"] = pushed.loss.detach()
        self.monitor["hard_pairs"] = pushed.hard.detach()
        return pushed.loss

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """One encoder pass and the head; the map carries no attention."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))
