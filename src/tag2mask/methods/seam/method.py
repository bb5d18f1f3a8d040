"""SEAM: evidence that moves with the image, and gathers from the cells that look alike.

Paper: Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic Segmentation
    (arXiv 2004.04581). With gated pyramid pooling: AEFT, supplement section 1.1.

1. One network sees the image and its small view A(image); both are classified.
2. ER: the class activation map of A(image) is A of the image's map.
3. PCM: each cell takes the evidence of the cells whose colors and early features are like its own.
4. ECR: what PCM gathers in one view follows the plain map of the other, where it differs most.
5. L = L_cls + L_ER + L_ECR, where L_cls holds a term that keeps the weakest cells of PCM near zero.

PCM's maps are the evidence. Evidence and features that enter PCM are detached, so that ECR and the
weakest-cells term teach PCM's own layers alone; classifier and backbone learn from L_cls and ER.

Departures: maps are normalized at the network's own grid and go from there to the grid of the small
view; the official code enlarges them to the image first, and pools its logits and weakest cells
there. Where the backbone's grids differ, f2 and f3 are brought to the last one.
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
    """Weights and switches; the defaults are the paper's."""

    name: str = "seam"
    pooling: Pooling = "gap"
    """How the map becomes logits: gap is the paper's; gpp: AEFT supplement, section 1.1."""
    gpp: GPPConfig = GPPConfig()
    """Switches of pooling gpp."""
    width: int = Field(default=0, ge=0)
    """Channels of a layer before the classifier; 0: none."""
    pcm: bool = True
    """Gather evidence from like cells (Table 2)."""
    er: float = Field(default=1.0, ge=0)
    """Weight of the equivariance of plain maps; 0 switches it off (Table 2)."""
    ecr: float = Field(default=1.0, ge=0)
    """Weight of the cross-equivariance of gathered maps; 0 switches it off (Table 2)."""
    min_pooling: float = Field(default=1.0, ge=0)
    """Weight of the weakest cells of gathered maps within the classification loss."""
    small_scale: Fraction = 0.3
    """Factor of the second view, which is looked at only for er and ecr."""
    ecr_share: Fraction = 0.2
    """Of all values of an image the furthest that count in ecr."""
    min_share: Fraction = 0.25
    """Of all cells the weakest."""


class ViewOutput(NamedTuple):
    """What the network says about one view."""

    logits: Tensor
    """(N, F)."""
    cam: Tensor
    """(N, F, h, w) raw."""
    gathered: Tensor | None
    """(N, 1 + F, h, w) in [0, 1], background first; None without PCM."""


class SEAM(Method):
    """Two views of an image with one network, and a module that compares cells."""

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
            raise RecipeError("method.ecr: compares what pcm gathers; set it to 0 or pcm to true")
        self.view = DownscaledView(config.small_scale, align_corners=True, multiple_px=1)
        self.head = ClassActivationHead(
            backbone.channels[-1], num_foreground, config.pooling, config.gpp, config.width
        )
        self.pcm = PixelCorrelation(backbone.channels[1:3]) if config.pcm else None

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """SEAM, Eq. 7 to 10; the second view only where something compares it with the first."""
        config, tags = self.config, batch.tags
        image = self.backbone.normalize(batch.image)
        large = self._look(image)
        if not (config.er or config.ecr):
            return self._classification([large], tags)
        small = self._look(self.view.image(image))
        losses = self._classification([large, small], tags)
        losses.update(self._equivariance(large, small, tags, self.view.size(image.shape[-2:])))
        return losses

    def _classification(self, looks: list[ViewOutput], tags: Tensor) -> dict[str, Tensor]:
        """Soft-margin loss and the weakest cells of what PCM gathers, means over the views."""
        config = self.config
        losses = {
            "classification": _mean(
                [
                    F.multilabel_soft_margin_loss(compute_multi_scale_cam.logits, tags)
                    for compute_multi_scale_cam in looks
                ]
            )
        }
        gathered = [
            compute_multi_scale_cam.gathered
            for compute_multi_scale_cam in looks
            if compute_multi_scale_cam.gathered is not None
        ]
        if gathered and config.min_pooling:
            present = tags[:, :, None, None]
            weakest = _mean(
                [min_pooling_loss(maps[:, 1:] * present, config.min_share) for maps in gathered]
            )
            losses["min_pooling"] = config.min_pooling * weakest
        return losses

    def _equivariance(
        self, large: ViewOutput, small: ViewOutput, tags: Tensor, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """ER and ECR on the small view's pixel grid, absent classes zero."""
        config = self.config
        present = tags[:, :, None, None]
        first, second = (
            self.view.maps(peak_normalized(compute_multi_scale_cam.cam), size) * present
            for compute_multi_scale_cam in (large, small)
        )
        agreement = equivariance_loss(first, second)
        empty = (large.cam.detach().amax(dim=(2, 3)) <= 0).to(tags.dtype) * tags
        self.monitor["equivariance"] = agreement.detach()
        self.monitor["empty_cams"] = empty.sum() / tags.sum().clamp_min(1)
        losses = {"er": config.er * agreement} if config.er else {}
        if config.ecr and large.gathered is not None and small.gathered is not None:
            kept = F.pad(present, (0, 0, 0, 0, 1, 0), value=1.0)  # background stays
            third, fourth = (
                self.view.maps(peak_normalized(maps), size) * kept
                for maps in (large.gathered, small.gathered)
            )
            losses["ecr"] = config.ecr * cross_equivariance_loss(
                first, second, third, fourth, config.ecr_share
            )
        return losses

    def _look(self, image: Tensor) -> ViewOutput:
        """One encoder pass, head and PCM."""
        maps = self.backbone(image).maps
        logits, cam = (part.float() for part in self.head(maps[-1]))
        return ViewOutput(
            logits, cam, None if self.pcm is None else self.pcm(image, maps[1:3], cam)
        )

    def class_logits(self, image: Tensor) -> Tensor:
        """(N, F) class logits; nothing is gathered."""
        logits: Tensor = self.head(self.backbone(image).maps[-1])[0]
        return logits

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """What PCM gathers; without it the plain map."""
        compute_multi_scale_cam = self._look(image)
        return CamOutput(
            compute_multi_scale_cam.logits,
            compute_multi_scale_cam.cam
            if compute_multi_scale_cam.gathered is None
            else compute_multi_scale_cam.gathered[:, 1:],
        )


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()
