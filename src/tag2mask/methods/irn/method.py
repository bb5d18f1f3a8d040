"""IRN: boundaries between things, learned from sure labels, and a walk that does not cross them.

Paper: Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations (Ahn, Cho and
    Kwak, CVPR 2019).

1. The class maps of a trained classifier, cut at two scores of background and each cut refined by a
   dense CRF on hard labels, tell which pixels are surely of a class or surely background
   (`predict.confident: irn` of a label stage).
2. A boundary branch reads all maps of a pretrained, frozen backbone. Two pixels less than `radius`
   cells apart belong together by 1 - the strongest boundary on the line between them.
3. L = (half background pairs, half foreground pairs) / 2 + different pairs / 2.
4. The classifier's evidence, weakened on boundaries, walks along affinity^10 (`predict.propagate`)
   and is divided by its largest value; 0.25 is a usual `predict.background` for it.

The displacement branch, which tells instances of a class apart, is an option that is off: masks of
classes do not need it, and nothing here reads what it learns.

Departures: pairs at the edges of the crop count too; as many maps as the backbone has (a ResNet
gave five); evidence is made at full size and averaged over cells, where the released code makes it
at the grid; the displacement branch has no learning rate of its own. A backbone that no checkpoint
filled learns too.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from tag2mask.methods.frozen import FrozenMethod, ask
from tag2mask.methods.irn.affinity import boundary_affinity
from tag2mask.methods.irn.heads import DisplacementHead, EdgeHead
from tag2mask.methods.irn.losses import displacement_losses
from tag2mask.methods.protocol import Propagation
from tag2mask.models.base import Backbone
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch

LEAST_PEAK = 1e-5
"""Evidence that is nowhere larger stays as it is."""


class IRNConfig(MethodConfig):
    """The published settings of the boundary branch and its walk."""

    name: str = "irn"
    radius: int = Field(default=10, ge=2, le=64)
    """Pairs nearer than this are learned from, in cells."""
    walk_radius: int = Field(default=5, ge=2, le=64)
    """Pairs nearer than this are walked along, in cells."""
    power: PositiveFloat = 10.0
    """Exponent of the affinity in the walk; larger keeps evidence closer to home."""
    walk_steps: int = Field(default=256, ge=0)
    """Steps of the walk."""
    displacement: bool = False
    """Also learn the way to the middle of each thing; masks of classes do not need it."""


class IRN(Method):
    """A boundary branch on a frozen backbone, beside the classifier whose evidence it spreads."""

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
        """Keep the classifier, frozen; it becomes part of the weights file."""
        self.classifier = FrozenMethod(earlier.only("irn"), self.backbone)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the branches; a frozen backbone stays as it is."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Cross-entropy of the affinity of labeled pairs (4.3), and displacement if asked for.

        Raises:
            RecipeError: If the images come without labels.
        """
        mask = labeled_pixels(batch, "irn")
        maps = self._maps(self.backbone.normalize(batch.image))
        logits = self.edge(maps)
        cells = downscale_label(mask, logits.shape[-2:])
        pairs = pair_labels(cells, self.offsets)
        self.monitor["ignored_cells"] = (cells == IGNORE).float().mean()
        with torch.autocast(logits.device.type, enabled=False):
            affinity = boundary_affinity(logits.float().sigmoid(), self.offsets)
            parts = pair_losses(affinity, pairs)
        self.monitor.update({name: part.detach() for name, part in parts._asdict().items()})
        losses = {"affinity": parts.total()}
        if self.displacement is not None:
            way = self.displacement(maps).float()
            foreground, background = displacement_losses(way, pairs, self.offsets)
            losses["displacement"] = (foreground + background) / 2
        return losses

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """The classifier's own."""
        return ask(self.classifier, "irn").compute_cam(image, tags)

    def boundary(self, image: Tensor) -> Tensor:
        """(1, 1, h, w) strength of boundaries of one normalized image, averaged with its mirror."""
        logits: Tensor = self.edge(self._maps(torch.cat([image, image.flip(-1)]))).float()
        return ((logits[:1] + logits[1:].flip(-1)) / 2).sigmoid()

    def propagation(self, image: Tensor) -> Propagation:
        """A walk of evidence that boundaries stop, at the grid of the first map."""
        edge = self.boundary(image)
        near = half_disc_offsets(self.config.walk_radius)
        power = boundary_affinity(edge, near) ** self.config.power
        pairs, offsets = both_directions(power, near)

        def walk(selected_cam: Tensor) -> Tensor:
            grid = (edge.shape[-2], edge.shape[-1])
            start = F.adaptive_avg_pool2d(selected_cam, grid) * (1 - edge)
            moved = random_walk(start, pairs, offsets, self.config.walk_steps)
            return moved / moved.amax().clamp_min(LEAST_PEAK)

        return walk

    def _maps(self, image: Tensor) -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps: tuple[Tensor, ...] = self.backbone(image).maps
            return maps
