"""IRN: object boundaries learned from confident pseudo-labels, and a random walk they stop.

Paper: Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations (Ahn, Cho and
    Kwak, CVPR 2019, https://arxiv.org/abs/1904.05044).

1. Threshold the CAM of a trained classifier at two background scores and refine each result with a
   dense CRF on hard labels. Pixels whose class holds in both are confident pseudo-labels
   (`predict.confident.name=irn` of a label stage).
2. A boundary branch reads all feature maps of a pretrained, frozen backbone. The affinity of two
   positions less than `radius` apart is 1 minus the strongest boundary on the line between them.
3. L = (half background pairs, half foreground pairs) / 2 + different pairs / 2.
4. Attenuate the classifier's CAM on boundaries, propagate it by a random walk along affinity^10
   (`predict.propagate`) and divide it by its maximum. A usual `predict.background` is 0.25.

The displacement branch, which separates instances of a class, is optional and off by default:
semantic masks do not need it, and nothing here reads its output.

Departs:
    - Pairs at the edges of the crop count too.
    - The branch reads as many feature maps as the backbone has (five of a ResNet in the paper).
    - The CAM is made at full size and averaged down to the grid; the released code makes it at the
      grid.
    - The displacement branch has no learning rate of its own.
    - A backbone without loaded weights is trained too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import MethodConfig
from tag2mask.functional.pair_affinity import downscale_label, pair_labels, pair_losses
from tag2mask.functional.pseudo_label import with_constant_background
from tag2mask.functional.stencil import both_directions, half_disc_offsets, random_walk
from tag2mask.methods.base import (
    CamOutput,
    Method,
    StageOutputs,
    labeled_pixels,
)
from tag2mask.methods.confident import ConfidentLabels
from tag2mask.methods.frozen import FrozenMethod, require_frozen
from tag2mask.methods.irn.affinity import boundary_affinity
from tag2mask.methods.irn.heads import DisplacementHead, EdgeHead
from tag2mask.methods.irn.losses import displacement_losses
from tag2mask.methods.protocol import Propagation, ScaledViews
from tag2mask.models.base import Backbone
from tag2mask.models.scratch import shallow_copy
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch, DatasetView

MIN_PEAK = 1e-5
"""A CAM whose maximum is smaller is divided by this instead."""


class IRNConfig(MethodConfig):
    """The published settings of the boundary branch and its random walk."""

    name: str = "irn"
    radius: int = Field(default=10, ge=2, le=64)
    """Training uses pairs of positions closer than this, in grid positions."""
    walk_radius: int = Field(default=5, ge=2, le=64)
    """The random walk uses pairs of positions closer than this, in grid positions."""
    power: PositiveFloat = 10.0
    """Exponent of the affinity in the random walk; larger propagates the CAM less far."""
    walk_steps: int = Field(default=256, ge=0, le=2**16)
    """Steps of the random walk."""
    displacement: bool = False
    """Also learn the displacement to each object's center; semantic masks do not need it."""


class IRN(Method):
    """A boundary branch on a frozen backbone, and the frozen classifier whose CAM it propagates."""

    Config = IRNConfig
    config: IRNConfig
    confident_labels: ClassVar[ConfidentLabels | None] = ConfidentLabels(
        with_constant_background, 0.30, 0.05
    )
    reads_masks = True

    def __init__(
        self,
        config: IRNConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self.offsets = half_disc_offsets(config.radius)
        self.frozen = bool(backbone.loaded)
        if self.frozen:
            self.backbone.requires_grad_(False).eval()
        self.edge = EdgeHead(backbone.channels)
        self.displacement = DisplacementHead(backbone.channels) if config.displacement else None
        self.classifier: FrozenMethod | None = None

    def setup(self, earlier: StageOutputs) -> None:
        """Keep the frozen classifier; it becomes part of the weights file."""
        self.classifier = FrozenMethod(earlier.only("irn"), self.backbone)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the branches; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the cross-entropy of the affinity of labeled pairs, and displacement if enabled.

        Raises:
            RecipeError: If the images have no labels.

        Source:
            Specification 4.3.
        """
        mask = labeled_pixels(batch, "irn")
        maps = self._maps(self.backbone.normalize(batch.image))
        logits = self.edge(maps)
        label = downscale_label(mask, logits.shape[-2:])
        pairs = pair_labels(label, self.offsets)
        self.monitor["ignored_pixels"] = (label == IGNORE).float().mean()
        with torch.autocast(logits.device.type, enabled=False):
            affinity = boundary_affinity(logits.float().sigmoid(), self.offsets)
            parts = pair_losses(affinity, pairs)
        self.monitor.update({name: part.detach() for name, part in parts._asdict().items()})
        losses = {"affinity": parts.total()}
        if self.displacement is not None:
            displacement = self.displacement(maps).float()
            foreground, background = displacement_losses(displacement, pairs, self.offsets)
            losses["displacement"] = (foreground + background) / 2
        return losses

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Return logits and CAM of the frozen classifier."""
        return require_frozen(self.classifier, "irn").compute_cam(image, tags)

    def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
        """Return logits and CAM of the frozen classifier, which may work while labeling."""
        return require_frozen(self.classifier, "irn").compute_multi_scale_cam(views)

    def class_logits(self, image: Tensor) -> Tensor:
        """Return the class logits of the frozen classifier."""
        return require_frozen(self.classifier, "irn").class_logits(image)

    @property
    def works_while_labeling(self) -> bool:
        """Whether the frozen classifier does."""
        return require_frozen(self.classifier, "irn").method.works_while_labeling

    def with_dataset(self, dataset: DatasetView) -> Self:
        """Return this network; its frozen classifier has access to the images of a labeling run."""
        classifier = require_frozen(self.classifier, "irn")
        return shallow_copy(self, classifier=classifier.with_dataset(dataset))

    def boundary(self, image: Tensor) -> Tensor:
        """Predict the (1, 1, h, w) boundary in [0, 1] of one image, averaged over both flips."""
        logits: Tensor = self.edge(self._maps(torch.cat([image, image.flip(-1)]))).float()
        return ((logits[:1] + logits[1:].flip(-1)) / 2).sigmoid()

    def propagation(self, image: Tensor) -> Propagation:
        """Return a random walk that boundaries stop, on the grid of the first feature map."""
        boundary = self.boundary(image)
        half_offsets = half_disc_offsets(self.config.walk_radius)
        power = boundary_affinity(boundary, half_offsets) ** self.config.power
        affinity, offsets = both_directions(power, half_offsets)

        def propagate(selected_cam: Tensor) -> Tensor:
            grid = (boundary.shape[-2], boundary.shape[-1])
            initial = F.adaptive_avg_pool2d(selected_cam, grid) * (1 - boundary)
            propagated = random_walk(initial, affinity, offsets, self.config.walk_steps)
            return propagated / propagated.amax().clamp_min(MIN_PEAK)

        return propagate

    def _maps(self, image: Tensor) -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps: tuple[Tensor, ...] = self.backbone(image).maps
            return maps
