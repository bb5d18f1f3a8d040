"""SEAM: a CAM that is equivariant to downscaling, refined by pixel correlation.

Paper: Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic Segmentation
    (Wang et al., CVPR 2020, https://arxiv.org/abs/2004.04581). With gated pyramid pooling: AEFT,
    supplement section 1.1.

1. Run one network on the image and on its small view A(image), and classify both.
2. ER (equivariant regularization): the CAM of A(image) must equal A of the image's CAM.
3. PCM (pixel correlation module): each position averages the CAM of the positions whose colors and
   early features are similar to its own.
4. ECR (equivariant cross regularization): PCM's map of one view must match the plain CAM of the
   other view, where the difference is largest.
5. L = L_cls + L_ER + L_ECR. L_cls includes a min-pooling term that keeps the lowest values of PCM's
   maps near zero.

PCM's maps are the final CAM. The CAM and the features that enter PCM are detached, so ECR and the
min-pooling term train PCM's own layers only; classifier and backbone learn from L_cls and ER.

Departs:
    - Maps are normalized on the network's own grid and resized from there to the grid of the small
      view. The official code upsamples them to the image first, and pools logits and lowest values
      there.
    - If the backbone's grids differ, f2 and f3 are resized to the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import Fraction, MethodConfig
from tag2mask.errors import RecipeError
from tag2mask.functional.view import DownscaledView
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.seam.losses import (
    cross_equivariance_loss,
    equivariance_loss,
    min_pooling_loss,
    peak_normalized,
)
from tag2mask.methods.seam.pixel_correlation import PixelCorrelation
from tag2mask.models.base import Backbone
from tag2mask.models.classifier import ClassActivationHead, Pooling
from tag2mask.models.gated_pyramid import GPPConfig
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch


class SEAMConfig(MethodConfig):
    """The defaults are the paper's."""

    name: str = "seam"
    pooling: Pooling = "gap"
    """How a class map becomes a logit. gap: the paper's; gpp: AEFT, supplement section 1.1."""
    gpp: GPPConfig = GPPConfig()
    """Options of the pooling gpp."""
    width: int = Field(default=0, ge=0, le=8192)
    """Channels of an extra layer before the classifier; 0 omits it."""
    dropout: Fraction = 0.5
    """Probability of dropping a channel before the classifier in training."""
    pcm: bool = True
    """Refine the CAM by the pixel correlation module (Table 2)."""
    er: float = Field(default=1.0, ge=0)
    """Weight of the equivariance loss on plain CAM; 0 switches it off (Table 2)."""
    ecr: float = Field(default=1.0, ge=0)
    """Weight of the cross-equivariance loss on PCM's maps; 0 switches it off (Table 2)."""
    min_pooling: float = Field(default=1.0, ge=0)
    """Weight of the min-pooling loss on PCM's maps, a part of the classification loss."""
    small_scale: Fraction = 0.3
    """Size of the second view as a fraction of the crop; used only by er and ecr."""
    ecr_fraction: Fraction = 0.2
    """Fraction of an image's values, those with the largest difference, that count in ecr."""
    min_pooling_fraction: Fraction = 0.25
    """Fraction of an image's pixels, those with the lowest values, that min_pooling averages."""


class ViewOutput(NamedTuple):
    """What the network computes for one view."""

    logits: Tensor
    """(N, F)."""
    cam: Tensor
    """(N, F, h, w) raw."""
    refined: Tensor | None
    """(N, 1 + F, h, w) map of PCM in [0, 1], background first; None without PCM."""


class SEAM(Method):
    """One network on two views of an image, and the pixel correlation module."""

    Config = SEAMConfig
    config: SEAMConfig

    def __init__(
        self,
        config: SEAMConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        if config.ecr and not config.pcm:
            raise RecipeError(
                "method.ecr: compares the maps of pcm; set method.ecr to 0 or method.pcm to true"
            )
        self.view = DownscaledView(config.small_scale, align_corners=True, multiple_px=1)
        self.head = ClassActivationHead(
            backbone.channels[-1],
            num_foreground,
            config.pooling,
            config.gpp,
            config.width,
            xavier=True,
            dropout=config.dropout,
        )
        self.pcm = PixelCorrelation(backbone.channels[1:3]) if config.pcm else None

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the losses of SEAM, Eq. 7 to 10; the second view only if er or ecr needs it."""
        config, tags = self.config, batch.tags
        image = self.backbone.normalize(batch.image)
        large = self._forward_view(image)
        if not (config.er or config.ecr):
            return self._classification([large], tags)
        small = self._forward_view(self.view.image(image))
        losses = self._classification([large, small], tags)
        losses.update(self._equivariance(large, small, tags, self.view.size(image.shape[-2:])))
        return losses

    def _classification(self, outputs: list[ViewOutput], tags: Tensor) -> dict[str, Tensor]:
        """Compute the soft-margin loss and the min-pooling loss, means over the views."""
        config = self.config
        losses = {
            "classification": _mean(
                [F.multilabel_soft_margin_loss(output.logits, tags) for output in outputs]
            )
        }
        refined = [output.refined for output in outputs if output.refined is not None]
        if refined and config.min_pooling:
            present = tags[:, :, None, None]
            loss = _mean(
                [
                    min_pooling_loss(cam[:, 1:] * present, config.min_pooling_fraction)
                    for cam in refined
                ]
            )
            losses["min_pooling"] = config.min_pooling * loss
        return losses

    def _equivariance(
        self, large: ViewOutput, small: ViewOutput, tags: Tensor, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Compute ER and ECR on the small view's pixel grid, with absent classes at zero."""
        config = self.config
        present = tags[:, :, None, None]
        cam, small_cam = (
            self.view.maps(peak_normalized(output.cam), size) * present for output in (large, small)
        )
        equivariance = equivariance_loss(cam, small_cam)
        empty = (large.cam.detach().amax(dim=(2, 3)) <= 0).to(tags.dtype) * tags
        self.monitor["equivariance"] = equivariance.detach()
        self.monitor["empty_cams"] = empty.sum() / tags.sum().clamp_min(1)
        losses = {"er": config.er * equivariance} if config.er else {}
        if config.ecr and large.refined is not None and small.refined is not None:
            # Background, the first class, is always present.
            with_background = F.pad(present, (0, 0, 0, 0, 1, 0), value=1.0)
            refined, small_refined = (
                self.view.maps(peak_normalized(maps), size) * with_background
                for maps in (large.refined, small.refined)
            )
            losses["ecr"] = config.ecr * cross_equivariance_loss(
                cam, small_cam, refined, small_refined, config.ecr_fraction
            )
        return losses

    def _forward_view(self, image: Tensor) -> ViewOutput:
        """Run encoder, head and PCM on one view."""
        maps = self.backbone(image).maps
        logits, cam = (part.float() for part in self.head(maps[-1]))
        return ViewOutput(
            logits, cam, None if self.pcm is None else self.pcm(image, maps[1:3], cam)
        )

    def class_logits(self, image: Tensor) -> Tensor:
        """Compute the (N, F) class logits without running PCM."""
        logits: Tensor = self.head(self.backbone(image).maps[-1])[0]
        return logits

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Compute logits and PCM's map of every class; without PCM the plain CAM."""
        output = self._forward_view(image)
        cam = output.cam if output.refined is None else output.refined[:, 1:]
        return CamOutput(output.logits, cam)


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()
