"""AFA: affinity from attention, end to end with a decoder.

Paper: Learning Affinity from Attention: End-to-End Weakly-Supervised Semantic Segmentation with
    Transformers (arXiv 2203.02664), and its supplement.

1. Class activation maps at several scales, refined by the colors of the image (PAR) against two
   scores of background, give pseudo-labels: sure foreground, sure background, the rest ignored.
2. A decoder learns these labels; its masks are the segmentation.
3. An affinity head reads off the attention logits which cells belong together, and learns it from
   the same labels.
4. Later on the evidence first walks along those affinities, and the decoder learns labels made from
   what has spread.
5. L = L_cls + 0.1 L_seg + 0.1 L_aff (+ L_energy); classification alone during warm-up.

Section 2 of the Specification settles what paper and supplement leave open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PositiveFloat, field_validator
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import Fraction, MethodConfig, StepsOrFraction, resolve_steps
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
    SelectedClasses,
    propagated_label,
    pseudo_label,
    select_present_classes,
)
from tag2mask.functional.segmentation import segmentation_loss
from tag2mask.methods.base import CamOutput, Method, labeling
from tag2mask.methods.protocol import InferenceProtocol, MultiScaleDecoder
from tag2mask.models.base import Backbone, Features
from tag2mask.models.classifier import ClassActivationHead, Pooling
from tag2mask.models.heads import AffinityHead
from tag2mask.models.segformer_head import SegFormerHead
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch


class AFAConfig(MethodConfig):
    """Weights and switches; the defaults are the paper's, its VOC schedule as fractions."""

    name: str = "afa"
    pooling: Pooling = "gmp"
    """gap: mean of the map; gmp: maximum of each channel before the classifier."""
    warmup: StepsOrFraction = 0.1
    """Classification alone until here."""
    affinity: Literal["off", "loss", "propagate"] = "propagate"
    """off: no affinity; loss: learned only; propagate: labels spread along it, too (Figure 5)."""
    propagate_from: StepsOrFraction = 0.3
    """The decoder learns refined labels until here, then propagated ones."""
    affinity_target: Literal["refined", "propagated"] = "refined"
    """Labels of the affinity from `propagate_from` on: refined (VOC) or propagated (COCO)."""
    refine: Literal["learned", "mhsa"] = "learned"
    """Along what evidence spreads: the learned affinity, or the attention as it is (Figure 3c)."""
    segmentation_weight: PositiveFloat = 0.1
    """lambda_1, weight of the decoder's loss (Table 4)."""
    affinity_weight: PositiveFloat = 0.1
    """lambda_2, weight of the affinity loss (Table 4)."""
    energy_weight: float = Field(default=0.0, ge=0)
    """lambda_3, weight of the dense-energy loss: 0.01 in Table 4, off in the released code."""
    radius: int = Field(default=8, ge=1)
    """Window of affinity labels and of the walk, in cells (Table 1)."""
    high: Fraction = 0.55
    """beta_h, background score that sure foreground must beat (Table 5)."""
    low: Fraction = 0.35
    """beta_l, background score against which sure background must still win (Table 5)."""
    decoder_width: int = Field(default=256, ge=1)
    """Channels of the decoder."""
    decoder_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Chance that a channel of the decoder is left out in training."""
    scale_logits: bool = False
    """Divide attention logits by sqrt(head_dim) before the affinity head (short runs need it)."""
    zero_init: bool = False
    """Start every affinity at 0.5 (short runs need it)."""
    label_scales: tuple[PositiveFloat, ...] = Field(default=(1.0, 0.5, 1.5), min_length=1)
    """Scales of the maps that make pseudo-labels; evidence spreads at the largest."""
    label_precision: LabelPrecision = "auto"
    """Arithmetic of those maps, which need no gradient."""

    @field_validator("affinity", mode="before")
    @classmethod
    def _off_is_no_truth_value(cls, value: object) -> object:
        """YAML reads a bare `off` as false."""
        return "off" if value is False else value


class Pairs(NamedTuple):
    """How alike the cells of a grid are."""

    affinity: Tensor
    """(N, L, L) in [0, 1]."""
    grid: tuple[int, int]
    """(h, w), h * w = L."""


class AFA(Method):
    """Classifier, affinity head and decoder, each teaching the next."""

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
        _check(config, backbone, refiner)
        self.head = ClassActivationHead(backbone.channels[-1], num_foreground, config.pooling)
        self.decoder = SegFormerHead(
            backbone.channels, num_foreground + 1, config.decoder_width, config.decoder_dropout
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
        """Specification 2.8; during warm-up only the classification is computed."""
        config = self.config
        image = self.backbone.normalize(batch.image)
        if step < resolve_steps(config.warmup, self.steps):
            logits = self.compute_cam(image).logits
            return {"classification": F.multilabel_soft_margin_loss(logits, batch.tags)}
        features: Features = self.backbone(image, attention=self.affinity is not None)
        logits, cam = (part.float() for part in self.head(features.maps[-1]))
        losses = {"classification": F.multilabel_soft_margin_loss(logits, batch.tags)}
        propagates = config.affinity == "propagate"
        propagates = propagates and step >= resolve_steps(config.propagate_from, self.steps)
        target, pair_target = self._labels(batch, image, cam.detach(), features, propagates)
        losses.update(self._decoder_losses(batch, features, target))
        if self.affinity is not None:
            losses["affinity"] = self._affinity_loss(features, pair_target)
        return losses

    def _decoder_losses(self, batch: Batch, features: Features, label: Tensor) -> dict[str, Tensor]:
        """Cross-entropy against the label and, where weighed, the dense energy of the image."""
        config = self.config
        logits = upsample(self.decoder(features.maps).float(), label.shape[-2:])
        loss = segmentation_loss(logits, label)
        self.monitor["segmentation"] = loss.detach()
        self.monitor["ignored_pixels"] = (label == IGNORE).float().mean()
        losses = {"segmentation": config.segmentation_weight * loss}
        if config.energy_weight:
            # Few runs need it, and its lattice takes a while to import.
            from tag2mask.functional.energy import dense_energy_loss

            probs = logits.softmax(dim=1)
            energy = dense_energy_loss(probs, batch.image, label, batch.valid)
            losses["energy"] = config.energy_weight * energy
        return losses

    def _affinity_loss(self, features: Features, label: Tensor) -> Tensor:
        """Contrast of same-class and different-class pairs within the window (2.6)."""
        pairs = self._pairs(features)
        loss = affinity_loss(pairs.affinity, affinity_label(label, pairs.grid, self.config.radius))
        self.monitor["affinity"] = loss.detach()
        return self.config.affinity_weight * loss

    @torch.no_grad()
    def _labels(
        self, batch: Batch, image: Tensor, cam: Tensor, features: Features, propagates: bool
    ) -> tuple[Tensor, Tensor]:
        """Labels (N, H, W) of the decoder and of the affinity; none is made that nobody learns."""
        selected = select_present_classes(batch.tags, batch.max_tags)
        selected_cam, walk = self._label_maps(
            image, cam, features, selected.class_indices, propagates
        )
        if walk is None:
            label = self._refined_label(batch, selected_cam, selected)
            return label, label
        propagate_cam = self._propagated_label(batch, selected_cam, selected, walk)
        if self.config.affinity_target == "propagated":
            return propagate_cam, propagate_cam
        return propagate_cam, self._refined_label(batch, selected_cam, selected)

    def _refined_label(
        self, batch: Batch, selected_cam: Tensor, selected: SelectedClasses
    ) -> Tensor:
        assert self.refiner is not None
        return pseudo_label(
            batch.image,
            selected_cam,
            selected,
            batch.valid,
            self.refiner,
            foreground_threshold=self.config.high,
            background_threshold=self.config.low,
        )

    def _propagated_label(
        self, batch: Batch, selected_cam: Tensor, selected: SelectedClasses, walk: Pairs
    ) -> Tensor:
        assert self.refiner is not None
        return propagated_label(
            batch.image,
            selected_cam,
            selected,
            batch.valid,
            self.refiner,
            walk.affinity,
            walk.grid,
            foreground_threshold=self.config.high,
            background_threshold=self.config.low,
            radius=self.config.radius,
        )

    def _label_maps(
        self, image: Tensor, cam: Tensor, features: Features, selected: Tensor, propagates: bool
    ) -> tuple[Tensor, Pairs | None]:
        """Multi-scale evidence of (N, K) `selected`, scale 1 reused; pairs if wanted.

        Source:
            Specification 2.2 and 6: pairs are those of the un-mirrored view at the largest
            scale.
        """
        config = self.config
        scale = max(config.label_scales)
        size = scaled_size(image.shape[-2:], scale)
        found: list[Pairs] = []
        if propagates and scale == 1.0:
            found.append(self._walk(features))

        def cam_of(view: Tensor) -> Tensor:
            wanted = propagates and not found and view.shape[-2:] == size
            seen: Features = self.backbone(view, attention=wanted)
            if wanted:  # mirror images stand behind
                upright = tuple(block.first(len(image)) for block in seen.attention)
                found.append(self._walk(seen._replace(attention=upright)))
            cam: Tensor = self.head.cam(seen.maps[-1])
            return cam.float()

        with labeling(self.backbone, config.label_precision, image.device.type):
            total = multi_scale_cam(
                cam_of, image, config.label_scales, known_cam=cam, class_indices=selected
            )
        return total, found[0] if found else None

    def _pairs(self, features: Features) -> Pairs:
        """Learned affinity of all pairs."""
        assert self.affinity is not None
        # In bf16 a saturated affinity would round to 1 or 0.
        return Pairs(self.affinity(features.attention).float().sigmoid(), _grid(features))

    def _walk(self, features: Features) -> Pairs:
        """Pairs along which evidence spreads."""
        if self.config.refine == "learned":
            return self._pairs(features)
        return Pairs(attention_affinity(self._attention(features)), _grid(features))

    def _attention(self, features: Features) -> Tensor:
        """What each cell attends to, mean over heads and blocks."""
        return mean_attention(features.logits(), self.backbone.head_dim)

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """One encoder pass and the classifier; decoder and affinity head stay idle."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))

    def segmentation(self, image: Tensor) -> Tensor:
        """One encoder pass and the decoder."""
        logits: Tensor = self.decoder(self.backbone(image).maps)
        return logits

    def attention_maps(self, image: Tensor) -> Mapping[str, Tensor]:
        """`attention`, and `affinity` where there is one; nothing from a network without either."""
        if not self.backbone.attention_channels:
            return {}
        features = self.backbone(image, attention=True)
        attention = self._attention(features)
        if self.config.refine == "mhsa":
            return {"attention": attention, "affinity": attention_affinity(attention)}
        if self.affinity is None:
            return {"attention": attention}
        return {"attention": attention, "affinity": self._pairs(features).affinity}


def _check(config: AFAConfig, backbone: Backbone, refiner: Refiner | None) -> None:
    """Refuse a recipe whose parts do not fit together, in one line."""
    if refiner is None:
        raise RecipeError("method.name: afa needs a refiner for its pseudo-labels; name one")
    if backbone.attention_channels:
        return
    if config.affinity != "off":
        raise RecipeError(
            "method.affinity: needs a backbone with attention; set it to off or use mit or hybrid"
        )
    if config.refine == "mhsa":
        raise RecipeError(
            "method.refine: mhsa needs a backbone with attention; use mit, hybrid or tiny"
        )


def _grid(features: Features) -> tuple[int, int]:
    height, width = features.maps[-1].shape[-2:]
    return height, width
