"""AFA: affinity from attention, trained end to end with a decoder.

Paper: Learning Affinity from Attention: End-to-End Weakly-Supervised Semantic Segmentation with
    Transformers (Ru et al., CVPR 2022, https://arxiv.org/abs/2203.02664), and its supplement.

1. Refine multi-scale CAM with pixel-adaptive refinement (PAR) against two background thresholds.
   The result is a pseudo-label: confident foreground, confident background, the rest ignored.
2. Train a decoder on these labels; its masks are the segmentation.
3. An affinity head predicts from the attention logits which pairs of positions share a class. It
   learns from the same labels.
4. Later in training, propagate the CAM along those affinities first; the decoder then learns from
   labels made from the propagated CAM.
5. L = L_cls + 0.1 L_seg + 0.1 L_aff (+ L_energy); only L_cls during warm-up.

Specification 2 decides what paper and supplement leave open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PositiveFloat, field_validator
from torch import Tensor
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
from tag2mask.functional.affinity import (
    affinity_label,
    affinity_loss,
    attention_affinity,
    mean_attention,
)
from tag2mask.functional.cam import multi_scale_cam, scaled_size, upsample
from tag2mask.functional.precision import LabelPrecision
from tag2mask.functional.pseudo_label import (
    Score,
    SelectedClasses,
    propagated_label,
    pseudo_label,
    select_present_classes,
)
from tag2mask.functional.segmentation import segmentation_loss
from tag2mask.methods.base import CamOutput, Method, labeling
from tag2mask.methods.label_thresholds import LabelThresholds, ThresholdRule
from tag2mask.methods.protocol import InferenceProtocol, MultiScaleDecoder
from tag2mask.methods.warmup import RATIO, ClassifierWarmup, WarmupRule
from tag2mask.models.base import Backbone, Features
from tag2mask.models.classifier import ClassActivationHead, Pooling
from tag2mask.models.heads import AffinityHead
from tag2mask.models.segformer_head import SegFormerHead
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch


class AFAConfig(MethodConfig):
    """The defaults are the paper's, with its VOC schedule as fractions of all steps."""

    name: str = "afa"
    pooling: Pooling = "gmp"
    """How a class map becomes a logit. gap: mean of the map; gmp: maximum of each feature channel,
    then the classifier."""
    warmup: StepsOrFraction = 0.1
    """Train only the classifier until this point."""
    warmup_rule: WarmupRule = "fixed"
    """End of the warm-up. fixed: at that point; auto: from there on, as soon as the classification
    loss is far below that of guessing, at half of all steps at the latest (short runs need it)."""
    affinity: Literal["off", "loss", "propagate"] = "propagate"
    """off: no affinity head; loss: learn the affinity; propagate: also propagate labels along it
    (Figure 5)."""
    propagate_from: StepsOrFraction = 0.3
    """The decoder learns refined labels until this point, then propagated labels; later if the
    warm-up ends later than planned."""
    affinity_target: Literal["refined", "propagated"] = "refined"
    """Labels that train the affinity from `propagate_from` on: refined (VOC), propagated (COCO)."""
    refine: Literal["learned", "mhsa"] = "learned"
    """What the CAM is propagated along. learned: the learned affinity; mhsa: raw self-attention
    (Figure 3c)."""
    segmentation_weight: PositiveFloat = 0.1
    """lambda_1, weight of the decoder's loss (Table 4)."""
    affinity_weight: PositiveFloat = 0.1
    """lambda_2, weight of the affinity loss (Table 4)."""
    energy_weight: float = Field(default=0.0, ge=0)
    """lambda_3, weight of the dense-energy loss: 0.01 in Table 4, 0 (off) in the released code."""
    radius: int = Field(default=8, ge=1, le=64)
    """Radius of affinity labels and of the random walk, in grid positions (Table 1)."""
    thresholds: ThresholdRule = "fixed"
    """How the next two are used. fixed: as they are; auto: their mean follows the maps (Otsu's
    threshold of recent batches), their distance stays."""
    foreground_threshold: Fraction = 0.55
    """beta_h, background score that confident foreground must exceed; higher ignores more pixels
    (Table 5)."""
    background_threshold: Fraction = 0.35
    """beta_l, background score that still exceeds the CAM of confident background; lower ignores
    more pixels (Table 5)."""
    decoder_width: Width = 256
    """Channels of the decoder."""
    decoder_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout probability of a decoder channel in training."""
    scale_logits: bool = False
    """Divide attention logits by sqrt(head_dim) before the affinity head (short runs need it)."""
    zero_init: bool = False
    """Start every affinity at 0.5 (short runs need it)."""
    label_scales: Scales = (1.0, 0.5, 1.5)
    """Scales of the CAM that pseudo-labels are made from; propagation uses the largest."""
    label_precision: LabelPrecision = "auto"
    """Arithmetic of that CAM, which needs no gradient; auto: bf16 where the processor computes it
    fast."""

    @field_validator("affinity", mode="before")
    @classmethod
    def _false_is_off(cls, value: object) -> object:
        """Undo YAML, which reads a bare `off` as false."""
        return "off" if value is False else value


class GridAffinity(NamedTuple):
    """Affinity of all pairs of positions of a grid."""

    affinity: Tensor
    """(N, L, L) in [0, 1]."""
    grid: tuple[int, int]
    """(h, w), h * w = L."""


class AFA(Method):
    """Classifier, affinity head and decoder; pseudo-labels from the CAM train the other two."""

    Config = AFAConfig
    config: AFAConfig
    protocol: ClassVar[InferenceProtocol] = MultiScaleDecoder()

    def __init__(
        self,
        config: AFAConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self.propagation_radius = config.radius
        _check(config, backbone, refiner)
        self.head = ClassActivationHead(backbone.channels[-1], num_foreground, config.pooling)
        self.decoder = SegFormerHead(
            backbone.channels, num_foreground + 1, config.decoder_width, config.decoder_dropout
        )
        self.warmup = ClassifierWarmup(config.warmup_rule, config.warmup, steps, num_foreground)
        self.thresholds = LabelThresholds(
            config.thresholds, config.foreground_threshold, config.background_threshold
        )
        self.affinity = None
        if config.affinity != "off":
            self.affinity = AffinityHead(
                backbone.attention_channels,
                backbone.head_dim,
                scale_logits=config.scale_logits,
                zero_init=config.zero_init,
            )

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the losses of Specification 2.8; during warm-up only the classification."""
        config = self.config
        image = self.backbone.normalize(batch.image)
        if not self.warmup.is_over(step):
            loss = F.multilabel_soft_margin_loss(self.compute_cam(image).logits, batch.tags)
            self.monitor.update(self.warmup.observe(loss, batch.tags, step))
            return {"classification": loss}
        self.monitor.pop(RATIO, None)
        features: Features = self.backbone(image, attention=self.affinity is not None)
        logits, cam = (part.float() for part in self.head(features.maps[-1]))
        losses = {"classification": F.multilabel_soft_margin_loss(logits, batch.tags)}
        propagates = config.affinity == "propagate"
        start = resolve_steps(config.propagate_from, self.steps) + self.warmup.delay
        propagates = propagates and step >= start
        target, pair_target = self._labels(batch, image, cam.detach(), features, propagates)
        losses.update(self._decoder_losses(batch, features, target))
        if self.affinity is not None:
            losses["affinity"] = self._affinity_loss(features, pair_target)
        return losses

    def _decoder_losses(self, batch: Batch, features: Features, label: Tensor) -> dict[str, Tensor]:
        """Compute the cross-entropy against the label and, if weighted, the dense-energy loss."""
        config = self.config
        logits = upsample(self.decoder(features.maps).float(), label.shape[-2:])
        loss = segmentation_loss(logits, label)
        self.monitor["segmentation"] = loss.detach()
        self.monitor["ignored_pixels"] = (label == IGNORE).float().mean()
        losses = {"segmentation": config.segmentation_weight * loss}
        if config.energy_weight:
            # Few runs need it, and importing its lattice takes long.
            from tag2mask.functional.energy import dense_energy_loss

            probs = logits.softmax(dim=1)
            energy = dense_energy_loss(probs, batch.image, label, batch.valid)
            losses["energy"] = config.energy_weight * energy
        return losses

    def _affinity_loss(self, features: Features, label: Tensor) -> Tensor:
        """Compute the loss of same-class and different-class pairs within the radius.

        Source:
            Specification 2.6.
        """
        learned = self._learned_affinity(features)
        target = affinity_label(label, learned.grid, self.config.radius)
        loss = affinity_loss(learned.affinity, target)
        self.monitor["affinity"] = loss.detach()
        return self.config.affinity_weight * loss

    @torch.no_grad()
    def _labels(
        self, batch: Batch, image: Tensor, cam: Tensor, features: Features, propagates: bool
    ) -> tuple[Tensor, Tensor]:
        """Make the (N, H, W) labels of the decoder and of the affinity, and none that is unused."""
        selected = select_present_classes(batch.tags, batch.max_tags)
        selected_cam, affinity = self._label_cam(
            image, cam, features, selected.class_indices, propagates
        )
        scores = self.thresholds(selected_cam, selected, batch.valid)
        if isinstance(scores[1], Tensor):
            self.monitor["background_threshold"] = scores[1]
        if affinity is None:
            label = self._refined_label(batch, selected_cam, selected, scores)
            return label, label
        propagated = self._propagated_label(batch, selected_cam, selected, scores, affinity)
        if self.config.affinity_target == "propagated":
            return propagated, propagated
        return propagated, self._refined_label(batch, selected_cam, selected, scores)

    def _refined_label(
        self,
        batch: Batch,
        selected_cam: Tensor,
        selected: SelectedClasses,
        scores: tuple[Score, Score],
    ) -> Tensor:
        assert self.refiner is not None
        return pseudo_label(
            batch.image,
            selected_cam,
            selected,
            batch.valid,
            self.refiner,
            foreground_threshold=scores[0],
            background_threshold=scores[1],
        )

    def _propagated_label(
        self,
        batch: Batch,
        selected_cam: Tensor,
        selected: SelectedClasses,
        scores: tuple[Score, Score],
        affinity: GridAffinity,
    ) -> Tensor:
        assert self.refiner is not None
        return propagated_label(
            batch.image,
            selected_cam,
            selected,
            batch.valid,
            self.refiner,
            affinity.affinity,
            affinity.grid,
            foreground_threshold=scores[0],
            background_threshold=scores[1],
            radius=self.config.radius,
        )

    def _label_cam(
        self, image: Tensor, cam: Tensor, features: Features, selected: Tensor, propagates: bool
    ) -> tuple[Tensor, GridAffinity | None]:
        """Compute the multi-scale CAM of (N, K) `selected` classes, and the affinity if needed.

        The `cam` and `features` of scale 1 are reused.

        Source:
            Specification 2.2 and 6: the affinity is that of the unflipped view at the largest
            scale.
        """
        config = self.config
        scale = max(config.label_scales)
        size = scaled_size(image.shape[-2:], scale)
        affinities: list[GridAffinity] = []
        if propagates and scale == 1.0:
            affinities.append(self._propagation_affinity(features))

        def compute_view_cam(view: Tensor) -> Tensor:
            needs_affinity = propagates and not affinities and view.shape[-2:] == size
            view_features: Features = self.backbone(view, attention=needs_affinity)
            if needs_affinity:  # flipped copies are stacked behind the images
                unflipped = tuple(block.first(len(image)) for block in view_features.attention)
                affinities.append(
                    self._propagation_affinity(view_features._replace(attention=unflipped))
                )
            view_cam: Tensor = self.head.cam(view_features.maps[-1])
            return view_cam.float()

        with labeling(self.backbone, config.label_precision, image.device.type):
            total = multi_scale_cam(
                compute_view_cam, image, config.label_scales, known_cam=cam, class_indices=selected
            )
        return total, affinities[0] if affinities else None

    def _learned_affinity(self, features: Features) -> GridAffinity:
        """Compute the learned affinity of all pairs."""
        assert self.affinity is not None
        # In bf16 a saturated affinity would round to 1 or 0.
        return GridAffinity(self.affinity(features.attention).float().sigmoid(), _grid(features))

    def _propagation_affinity(self, features: Features) -> GridAffinity:
        """Compute the affinity along which the CAM is propagated."""
        if self.config.refine == "learned":
            return self._learned_affinity(features)
        return GridAffinity(attention_affinity(self._attention(features)), _grid(features))

    def _attention(self, features: Features) -> Tensor:
        """Compute the (N, L, L) attention, the mean over heads and blocks."""
        return mean_attention(features.logits(), self.backbone.head_dim)

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Run the encoder and the classifier once, without decoder and affinity head."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))

    def segmentation(self, image: Tensor) -> Tensor:
        """Run the encoder and the decoder once."""
        logits: Tensor = self.decoder(self.backbone(image).maps)
        return logits

    def attention_maps(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return `attention`, and `affinity` if there is one; nothing from a backbone without."""
        if not self.backbone.attention_channels:
            return {}
        features = self.backbone(image, attention=True)
        attention = self._attention(features)
        if self.config.refine == "mhsa":
            return {"attention": attention, "affinity": attention_affinity(attention)}
        if self.affinity is None:
            return {"attention": attention}
        return {"attention": attention, "affinity": self._learned_affinity(features).affinity}


def _check(config: AFAConfig, backbone: Backbone, refiner: Refiner | None) -> None:
    """Reject a recipe whose parts do not fit together.

    Raises:
        RecipeError: Naming the key to change.
    """
    if refiner is None:
        raise RecipeError(
            "method.name: afa needs a refiner for its pseudo-labels; set refiner.name, for example "
            "to par"
        )
    if backbone.attention_channels:
        return
    if config.affinity != "off":
        raise RecipeError(
            "method.affinity: needs a backbone with attention; set it to off, or use mit, hybrid "
            "or tiny"
        )
    if config.refine == "mhsa":
        raise RecipeError(
            "method.refine: mhsa needs a backbone with attention; use mit, hybrid or tiny"
        )


def _grid(features: Features) -> tuple[int, int]:
    height, width = features.maps[-1].shape[-2:]
    return height, width
