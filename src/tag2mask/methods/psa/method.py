"""PSA: pixel-level semantic affinity, and a random walk along it.

Paper: Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised
    Semantic Segmentation (Ahn and Kwak, CVPR 2018, https://arxiv.org/abs/1803.10464).

1. Combine the CAM of a trained classifier with a background of two strengths and refine each with a
   dense CRF. Pixels whose class holds in both are confident pseudo-labels
   (`predict.confident.name=psa` of a label stage).
2. AffinityNet: turn the last three feature maps of a backbone into 448 features per position. The
   affinity of two positions less than `radius` apart is exp(-mean |f_i - f_j|).
3. L = background pairs / 4 + foreground pairs / 4 + different pairs / 2.
4. Propagate the classifier's CAM and its background by a random walk along affinity^8
   (`predict.propagate`); the highest score wins.

Departs:
    - Labels are files of 0, class and 255 and are resized as labels; the released code resizes the
      CRF's probabilities first.
    - Pairs at the edges of the crop count too.
    - There are two learning rates (loaded and new weights) instead of four.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import MethodConfig
from tag2mask.errors import RecipeError
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
from tag2mask.methods.frozen import FrozenMethod, require_frozen
from tag2mask.methods.protocol import Propagation, ScaledViews
from tag2mask.methods.psa.affinity import feature_affinity
from tag2mask.methods.psa.head import PairFeatures
from tag2mask.models.base import Backbone
from tag2mask.models.scratch import shallow_copy
from tag2mask.refiners.base import Refiner
from tag2mask.types import IGNORE, Batch, DatasetView


class PSAConfig(MethodConfig):
    """The published settings of AffinityNet and its random walk."""

    name: str = "psa"
    start: str | None = None
    """Stage among those in `from` whose backbone AffinityNet starts from; none: the pretrained
    weights."""
    radius: int = Field(default=5, ge=2, le=64)
    """Pairs of positions closer than this have an affinity, in grid positions."""
    power: PositiveFloat = 8.0
    """Exponent of the affinity in the random walk; larger propagates the CAM less far."""
    walk_steps: int = Field(default=256, ge=0, le=2**16)
    """Steps of the random walk."""
    background_power: PositiveFloat = 16.0
    """Exponent of the background score (1 - maximum of the CAM) before the random walk; larger
    gives larger objects."""


class PSA(Method):
    """AffinityNet, and the frozen classifier whose CAM it propagates."""

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
        """Copy the backbone of `start`; keep the frozen classifier, a part of the weights file.

        Raises:
            RecipeError: If `start` is no stage of `from` or has another backbone, or if there is
                not exactly one network with a CAM.
        """
        start, methods = self.config.start, dict(earlier.methods)
        if start is not None:
            self._copy_backbone(start, methods.get(start))
            methods = {name: one for name, one in methods.items() if name != start} or methods
        self.classifier = FrozenMethod(StageOutputs(methods).only("psa"), self.backbone)

    def _copy_backbone(self, stage: str, method: Method | None) -> None:
        """Copy the weights of an earlier stage's backbone."""
        if method is None:
            raise RecipeError(f"method.start: stage '{stage}' is not among those in its 'from'")
        weights = method.backbone.state_dict()
        own = self.backbone.state_dict()
        if {name: one.shape for name, one in weights.items()} != {
            name: one.shape for name, one in own.items()
        }:
            raise RecipeError(f"method.start: stage '{stage}' has another backbone")
        self.backbone.load_state_dict(weights)

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the cross-entropy of the affinity of labeled pairs.

        Raises:
            RecipeError: If the images have no labels.

        Source:
            Specification 4.3.
        """
        mask = labeled_pixels(batch, "psa")
        affinity = self._affinity(self.backbone.normalize(batch.image))
        label = downscale_label(mask, affinity.shape[-2:])
        parts = pair_losses(affinity, pair_labels(label, self.offsets))
        self.monitor.update({name: part.detach() for name, part in parts._asdict().items()})
        self.monitor["ignored_pixels"] = (label == IGNORE).float().mean()
        return {"affinity": parts.total()}

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Return logits and CAM of the frozen classifier."""
        return require_frozen(self.classifier, "psa").compute_cam(image, tags)

    def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
        """Return logits and CAM of the frozen classifier, which may work while labeling."""
        return require_frozen(self.classifier, "psa").compute_multi_scale_cam(views)

    def class_logits(self, image: Tensor) -> Tensor:
        """Return the class logits of the frozen classifier."""
        return require_frozen(self.classifier, "psa").class_logits(image)

    @property
    def works_while_labeling(self) -> bool:
        """Whether the frozen classifier does."""
        return require_frozen(self.classifier, "psa").method.works_while_labeling

    def with_dataset(self, dataset: DatasetView) -> Self:
        """Return this network; its frozen classifier has access to the images of a labeling run."""
        classifier = require_frozen(self.classifier, "psa")
        return shallow_copy(self, classifier=classifier.with_dataset(dataset))

    def propagation(self, image: Tensor) -> Propagation:
        """Return a random walk of CAM and background along the affinity, on the affinity's grid."""
        power = self._affinity(image) ** self.config.power
        affinity, offsets = both_directions(power, self.offsets)

        def propagate(selected_cam: Tensor) -> Tensor:
            strongest = selected_cam.amax(dim=1, keepdim=True)
            background = (1 - strongest) ** self.config.background_power
            grid = (affinity.shape[-2], affinity.shape[-1])
            scores = F.adaptive_avg_pool2d(torch.cat([background, selected_cam], dim=1), grid)
            return random_walk(scores, affinity, offsets, self.config.walk_steps)

        return propagate

    def _affinity(self, image: Tensor) -> Tensor:
        """Compute the (N, K, h, w) float32 affinity of positions on f2's grid to K neighbors."""
        features = self.head(self.backbone(image).maps[-3:])
        with torch.autocast(image.device.type, enabled=False):
            return feature_affinity(features.float(), self.offsets)
