"""PSA: a network that learns which near pixels belong together, and a walk along that.

Paper: Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised
    Semantic Segmentation (Ahn and Kwak, CVPR 2018).

1. The class maps of a trained classifier, each sharpened against two backgrounds and refined by a
   dense CRF, tell which pixels are surely of a class or surely background (`predict.confident:
   psa` of a label stage).
2. AffinityNet: the last three maps of a backbone become 448 features per cell; pixels less than
   `radius` cells apart are alike by exp(-mean |f_i - f_j|).
3. L = background pairs / 4 + foreground pairs / 4 + different pairs / 2.
4. The classifier's evidence, and what it leaves to background, walk along affinity^8 (`predict.
   propagate`); the largest wins.

Departures: labels come as files of 0, class and 255, so that they are resized as labels, where the
released code resizes CRF probabilities first; pairs at the edges of the crop count too. The
backbone's own learning rates are two (loaded, new) where there are four.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import MethodConfig
from tag2mask.functional.pair_affinity import downscale_label, pair_labels, pair_losses
from tag2mask.functional.pseudo_label import with_power_background
from tag2mask.functional.stencil import both_directions, half_disc_offsets, random_walk
from tag2mask.methods.base import (
    CamOutput,
    Method,
    StageOutputs,
    labeled_pixels,
)
from tag2mask.methods.confident import ConfidentLabels
from tag2mask.methods.frozen import FrozenMethod, ask
from tag2mask.methods.protocol import Propagation
from tag2mask.methods.psa.affinity import feature_affinity
from tag2mask.methods.psa.head import PairFeatures
from tag2mask.models.base import Backbone
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch


class PSAConfig(MethodConfig):
    """The published settings of AffinityNet and its walk."""

    name: str = "psa"
    radius: int = Field(default=5, ge=2)
    """Pairs nearer than this are compared, in cells."""
    power: PositiveFloat = 8.0
    """Exponent of the affinity in the walk; larger keeps evidence closer to home."""
    walk_steps: int = Field(default=256, ge=0)
    """Steps of the walk."""
    background_power: PositiveFloat = 16.0
    """Background is (1 - the strongest evidence) to this power before the walk; larger gives larger
    objects."""


class PSA(Method):
    """AffinityNet beside the frozen classifier whose evidence it spreads."""

    Config = PSAConfig
    config: PSAConfig
    confident_labels: ClassVar[ConfidentLabels | None] = ConfidentLabels(
        with_power_background, 4.0, 32.0
    )
    reads_masks = True

    def __init__(
        self,
        config: PSAConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self.offsets = half_disc_offsets(config.radius)
        self.head = PairFeatures(backbone.channels[-3:])
        self.classifier: FrozenMethod | None = None

    def setup(self, earlier: StageOutputs) -> None:
        """Keep the classifier, frozen; it becomes part of the weights file."""
        self.classifier = FrozenMethod(earlier.only("psa"), self.backbone)

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Cross-entropy of the affinity of labeled pairs (4.3).

        Raises:
            RecipeError: If the images come without labels.
        """
        mask = labeled_pixels(batch, "psa")
        affinity = self._affinity(self.backbone.normalize(batch.image))
        cells = downscale_label(mask, affinity.shape[-2:])
        parts = pair_losses(affinity, pair_labels(cells, self.offsets))
        self.monitor.update({name: part.detach() for name, part in parts._asdict().items()})
        self.monitor["ignored_cells"] = (cells == IGNORE).float().mean()
        return {"affinity": parts.total()}

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """The classifier's own."""
        return ask(self.classifier, "psa").compute_cam(image, tags)

    def propagation(self, image: Tensor) -> Propagation:
        """A walk of evidence and background along the affinity, at its grid."""
        power = self._affinity(image) ** self.config.power
        pairs, offsets = both_directions(power, self.offsets)

        def walk(selected_cam: Tensor) -> Tensor:
            strongest = selected_cam.amax(dim=1, keepdim=True)
            rest = (1 - strongest) ** self.config.background_power
            grid = (pairs.shape[-2], pairs.shape[-1])
            scores = F.adaptive_avg_pool2d(torch.cat([rest, selected_cam], dim=1), grid)
            return random_walk(scores, pairs, offsets, self.config.walk_steps)

        return walk

    def _affinity(self, image: Tensor) -> Tensor:
        """(N, K, h, w) affinity of each cell of f2's grid with its neighbors, float32."""
        features = self.head(self.backbone(image).maps[-3:])
        with torch.autocast(image.device.type, enabled=False):
            return feature_affinity(features.float(), self.offsets)
