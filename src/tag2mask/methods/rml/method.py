"""RML: representation mutual learning, trained end to end without a decoder.

Paper: Representation Mutual Learning for End-to-End Weakly-Supervised Semantic Segmentation, and
    its appendix.

1. Run one network on the crop and on its small view A(crop).
2. CIML (CAM level): make the CAM of both views agree, and the prototypes of classes dissimilar.
3. MFML (feature level): align the fused multi-scale context of both views, and keep their mutual
   information low.
4. APML (pixel level): make the affinity from attention agree with refined pseudo-labels, and across
   the views.
5. L = L_cls + l1 L_CIML + l2 L_MFML + l3 L_APML; only L_cls during warm-up.

The CAM is the segmentation; inference needs neither the neck nor the affinity head.
Specification R1 to R20 decide what the paper leaves open or misprints; each formula cites its
decision.

Departs:
    - The released code's losses without gradient are not reproduced (Specification R3 and R9
      explain why). Its estimate of the information of contexts is `information: released` (R8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import Fraction, MethodConfig, Scales, StepsOrFraction, Width
from tag2mask.errors import RecipeError
from tag2mask.functional.affinity import affinity_label, affinity_loss, mean_attention
from tag2mask.functional.cam import multi_scale_cam, normalize_cam
from tag2mask.functional.precision import LabelPrecision
from tag2mask.functional.pseudo_label import pseudo_label, select_present_classes
from tag2mask.functional.segmentation import masked_mean
from tag2mask.functional.view import DownscaledView
from tag2mask.methods.base import CamOutput, Method, labeling
from tag2mask.methods.label_thresholds import LabelThresholds, ThresholdRule
from tag2mask.methods.rml.club import ConditionalGaussian
from tag2mask.methods.rml.information import (
    AffinityInformation,
    FeatureInformation,
    affinity_information_loss,
    feature_information,
)
from tag2mask.methods.rml.neck import ContextNeck
from tag2mask.methods.rml.prototypes import class_prototypes, mean_similarity
from tag2mask.methods.warmup import RATIO, ClassifierWarmup, WarmupRule
from tag2mask.models.base import Backbone, Features
from tag2mask.models.classifier import ClassActivationHead, Pooling
from tag2mask.models.heads import AffinityHead
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch

KAPPA = 0.01
"""Scale of every information estimate in nats (R8): the paper's beta = 100 then gives weight 1. The
released estimate is a mean over pixels and is not scaled."""


class RMLConfig(MethodConfig):
    """The defaults are the paper's, with the specification's decisions."""

    name: str = "rml"
    pooling: Pooling = "gmp"
    """How a class map becomes a logit. gap: mean of the map; gmp: maximum of each feature channel,
    then the classifier."""
    warmup: StepsOrFraction = 0.11
    """Train only the classifier until this point."""
    warmup_rule: WarmupRule = "fixed"
    """End of the warm-up. fixed: at that point; auto: from there on, as soon as the classification
    loss is far below that of guessing, at half of all steps at the latest (short runs need it)."""
    ciml: float = Field(default=0.1, ge=0)
    """lambda_1, weight of the CAM-level loss; 0 switches it off (Table 1; Table 2 row a)."""
    mfml: float = Field(default=0.1, ge=0)
    """lambda_2, weight of the feature-level loss; 0 switches it off (Table 2 row c)."""
    apml: float = Field(default=0.1, ge=0)
    """lambda_3, weight of the pixel-level loss; 0 switches it off."""
    alpha: float = Field(default=0.1, ge=0)
    """Weight of the similarity of class prototypes in CIML (Table A2)."""
    prototype: Literal["features", "cam_grid"] = "features"
    """Class prototype. features: mean feature under the CAM; cam_grid: the CAM pooled to 4 x 4."""
    equivariance: Literal["present", "all"] = "present"
    """Classes whose maps are compared between the two views: present ones or all."""
    small_scale: Fraction = 0.3
    """Size of the second view as a fraction of the crop."""
    antialias: bool = False
    """Apply an antialiasing filter when downscaling to the second view."""
    classify_both: bool = False
    """Also classify the second view (R14)."""
    fusion: bool = True
    """Fuse all four feature maps into the context; false: only the last (Table 2 row b)."""
    neck_width: Width = 15
    """Channels of the fused context."""
    beta1: float = Field(default=100.0, ge=0)
    """Weight of the mutual information in MFML, multiplied by 0.01 unless released (Table A3)."""
    information: FeatureInformation = "gauss"
    """Estimator of the mutual information of the two contexts. gauss: Gaussian per channel;
    gauss_full: jointly Gaussian; club: variational bound; kl: divergence of spatial softmaxes;
    released: that of the paper's released code; off: none."""
    beta2: float = Field(default=100.0, ge=0)
    """Weight of the mutual-information loss in APML, multiplied by 0.01 (Table A4)."""
    affinity_information: AffinityInformation = "vd"
    """Mutual-information loss of the affinities (off: Table 2 row d)."""
    vd_label: bool = True
    """Include the label term in `vd` (Table 2 row e is reported with and without)."""
    affinity_loss: bool = True
    """Use the contrastive loss of the affinity against the pseudo-label (false: Table 2 row e)."""
    small_affinity: float = Field(default=0.0, ge=0)
    """Weight of the contrastive loss on the second view (R12)."""
    radius: int = Field(default=8, ge=1, le=64)
    """Radius of affinity labels and of the random walk, in grid positions."""
    small_radius: int = Field(default=2, ge=1, le=64)
    """Radius of affinity labels on the second view, in positions of its grid."""
    scale_logits: bool = False
    """Divide attention logits by sqrt(head_dim) before the affinity head (short runs need it)."""
    zero_init: bool = False
    """Start every affinity at 0.5 (short runs need it)."""
    thresholds: ThresholdRule = "fixed"
    """How the next two are used. fixed: as they are; auto: their mean follows the maps (Otsu's
    threshold of recent batches), their distance stays."""
    foreground_threshold: Fraction = 0.55
    """Background score that confident foreground must exceed; higher ignores more pixels."""
    background_threshold: Fraction = 0.35
    """Background score that still exceeds the CAM of confident background; lower ignores more
    pixels."""
    label_scales: Scales = (1.0, 0.5, 1.5)
    """Scales of the CAM that pseudo-labels are made from."""
    label_precision: LabelPrecision = "auto"
    """Arithmetic of that CAM, which needs no gradient; auto: bf16 where the processor computes it
    fast."""


class RML(Method):
    """Mutual learning between a crop and its small view: CAM, features and affinity."""

    Config = RMLConfig
    config: RMLConfig

    def __init__(
        self,
        config: RMLConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self.propagation_radius = config.radius
        self.view = DownscaledView(config.small_scale, config.antialias)
        self.head = ClassActivationHead(backbone.channels[-1], num_foreground, config.pooling)
        self.neck = None
        self.club = None
        self.affinity = None
        self.thresholds = None
        self.warmup = None
        if config.ciml or config.mfml or config.apml:
            self.warmup = ClassifierWarmup(config.warmup_rule, config.warmup, steps, num_foreground)
        if config.mfml:
            self.neck = ContextNeck(backbone.channels, config.neck_width, fusion=config.fusion)
            if config.information == "club":
                self.club = ConditionalGaussian(config.neck_width)
        if config.apml:
            self._check_affinity(backbone, refiner)
            self.thresholds = LabelThresholds(
                config.thresholds, config.foreground_threshold, config.background_threshold
            )
            self.affinity = AffinityHead(
                backbone.attention_channels,
                backbone.head_dim,
                scale_logits=config.scale_logits,
                zero_init=config.zero_init,
            )

    @staticmethod
    def _check_affinity(backbone: Backbone, refiner: Refiner | None) -> None:
        if not backbone.attention_channels:
            raise RecipeError(
                "method.apml: needs a backbone with attention; set it to 0, or use mit, hybrid or "
                "tiny"
            )
        if refiner is None:
            raise RecipeError(
                "method.apml: needs a refiner for its pseudo-labels; set it to 0, or set "
                "refiner.name, for example to par"
            )

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the losses of Eq. 16; during warm-up only the classification (R17)."""
        config = self.config
        image = self.backbone.normalize(batch.image)
        if self.warmup is None or not self.warmup.is_over(step):
            loss = F.multilabel_soft_margin_loss(self.compute_cam(image).logits, batch.tags)
            if self.warmup is not None:
                self.monitor.update(self.warmup.observe(loss, batch.tags, step))
            return {"classification": loss}
        self.monitor.pop(RATIO, None)
        attention = self.affinity is not None
        large: Features = self.backbone(image, attention=attention)
        small: Features = self.backbone(self.view.image(image), attention=attention)
        logits, cam = _float(*self.head(large.maps[-1]))
        small_logits, small_cam = _float(*self.head(small.maps[-1]))
        losses = {"classification": self._classification(logits, small_logits, batch.tags)}
        if config.ciml:
            losses["ciml"] = config.ciml * self._ciml(batch, large, small, cam, small_cam)
        if self.neck is not None:
            losses.update(self._mfml(batch, large, small))
        if self.affinity is not None:
            label = self._pseudo_label(batch, image, cam.detach())
            losses["apml"] = config.apml * self._apml(label, large, small)
        return losses

    def _classification(self, logits: Tensor, small_logits: Tensor, tags: Tensor) -> Tensor:
        """Compute Eq. 15 with its missing minus sign (R14)."""
        loss = F.multilabel_soft_margin_loss(logits, tags)
        if not self.config.classify_both:
            return loss
        return 0.5 * (loss + F.multilabel_soft_margin_loss(small_logits, tags))

    def _ciml(
        self, batch: Batch, large: Features, small: Features, cam: Tensor, small_cam: Tensor
    ) -> Tensor:
        """Compute the disagreement of the CAM of both views and the similarity of class prototypes.

        Source:
            Eq. 2 to 4 with R1 (differentiable, normalization included), R3 (both on the small
            view's pixel grid, mean over valid pixels and present classes) and R4, R5.
        """
        tags = batch.tags
        first, second = normalize_cam(cam.relu()), normalize_cam(small_cam.relu())
        size = self.view.size(batch.image.shape[-2:])
        weight = self.view.valid(batch.valid, size)[:, None]
        if self.config.equivariance == "present":
            weight = weight * tags[:, :, None, None]
        else:
            weight = weight.expand(-1, self.num_foreground, -1, -1)
        difference = (self.view.maps(first, size) - self.view.maps(second, size)).abs()
        equivariance = masked_mean(difference, weight)

        kind = self.config.prototype
        similarity = mean_similarity(*class_prototypes(first, large.maps[-1], tags, kind))
        similarity = similarity + mean_similarity(
            *class_prototypes(second, small.maps[-1], tags, kind)
        )
        empty = (cam.detach().amax(dim=(2, 3)) <= 0).to(tags.dtype) * tags
        self.monitor["equivariance"] = equivariance.detach()
        self.monitor["prototype_similarity"] = similarity.detach()
        self.monitor["empty_cams"] = empty.sum() / tags.sum().clamp_min(1)
        return equivariance + self.config.alpha * similarity

    def _mfml(self, batch: Batch, large: Features, small: Features) -> dict[str, Tensor]:
        """Compute the alignment of the fused contexts and their mutual information.

        Source:
            Eq. 6 to 8 with R6 (neck), R7 (compared on the small view's grid, valid pixels), R8.
        """
        assert self.neck is not None
        config = self.config
        context, small_context = _float(self.neck(large.maps), self.neck(small.maps))
        grid = small_context.shape[-2:]
        context = self.view.maps(context, grid)
        weight = self.view.valid(batch.valid, grid)
        difference = (context - small_context).abs().mean(dim=1)
        alignment = masked_mean(difference, weight)
        self.monitor["alignment"] = alignment.detach()
        loss = alignment
        losses = {}
        if config.information != "off":
            estimate = feature_information(
                config.information, context, small_context, weight, self.club
            )
            self.monitor["context_information"] = estimate.value.detach()
            scale = 1.0 if config.information == "released" else KAPPA
            loss = loss + config.beta1 * scale * estimate.value
            if estimate.fit is not None:
                losses["club_fit"] = estimate.fit
        losses["mfml"] = config.mfml * loss
        return losses

    @torch.no_grad()
    def _pseudo_label(self, batch: Batch, image: Tensor, cam: Tensor) -> Tensor:
        """Label the crop from the multi-scale CAM; the `cam` of scale 1 is reused."""
        assert self.refiner is not None
        assert self.thresholds is not None
        config = self.config
        with labeling(self.backbone, config.label_precision, image.device.type):
            selected = select_present_classes(batch.tags, batch.max_tags)
            selected_cam = multi_scale_cam(
                self._view_cam,
                image,
                config.label_scales,
                known_cam=cam,
                class_indices=selected.class_indices,
            )
        foreground, background = self.thresholds(selected_cam, selected, batch.valid)
        if isinstance(background, Tensor):
            self.monitor["background_threshold"] = background
        return pseudo_label(
            batch.image,
            selected_cam,
            selected,
            batch.valid,
            self.refiner,
            foreground_threshold=foreground,
            background_threshold=background,
        )

    def _view_cam(self, image: Tensor) -> Tensor:
        cam: Tensor = self.head.cam(self.backbone(image).maps[-1])
        return cam.float()

    def _apml(self, label: Tensor, large: Features, small: Features) -> Tensor:
        """Compute the contrastive affinity loss and the mutual-information loss.

        Source:
            Eq. 9 to 14 with R9 (Eq. 12 is zero as printed), R11 (pairs are pooled, never resized
            like an image), R12 (signs).
        """
        assert self.affinity is not None
        config = self.config
        grid, small_grid = _grid(large), _grid(small)
        logits = self.affinity(large.attention).float()
        pairs = affinity_label(label, grid, config.radius)
        loss = affinity_loss(logits.sigmoid(), pairs)
        self.monitor["affinity"] = loss.detach()
        self.monitor["ignored_pixels"] = (label == IGNORE).float().mean()
        if not config.affinity_loss:
            loss = loss * 0
        if config.affinity_information == "off" and not config.small_affinity:
            return loss
        small_logits = self.affinity(small.attention).float()
        small_pairs = affinity_label(label, small_grid, config.small_radius)
        if config.small_affinity:
            loss = loss + config.small_affinity * affinity_loss(small_logits.sigmoid(), small_pairs)
        if config.affinity_information == "off":
            return loss
        information = affinity_information_loss(
            config.affinity_information,
            (logits, pairs),
            (small_logits, small_pairs),
            self.view.pair_logits(logits, grid, small_grid),
            self.view.pairs((pairs != IGNORE).to(logits.dtype), grid, small_grid) > 1 - 1e-4,
            label_term=config.vd_label,
        )
        self.monitor["affinity_information_loss"] = information.detach()
        return loss + config.beta2 * KAPPA * information

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Run the encoder and the head once, without neck and affinity head."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))

    def attention_maps(self, image: Tensor) -> Mapping[str, Tensor]:
        """Return `attention`, and `affinity` with APML; empty if the backbone has no attention."""
        if not self.backbone.attention_channels:
            return {}
        features: Features = self.backbone(image, attention=True)
        attention = mean_attention(features.logits(), self.backbone.head_dim)
        if self.affinity is None:
            return {"attention": attention}
        return {
            "attention": attention,
            "affinity": self.affinity(features.attention).float().sigmoid(),
        }


def _float(*values: Tensor) -> tuple[Tensor, ...]:
    """Convert autocast's bf16 to float32, in which losses are computed."""
    return tuple(value.float() for value in values)


def _grid(features: Features) -> tuple[int, int]:
    height, width = features.maps[-1].shape[-2:]
    return height, width
