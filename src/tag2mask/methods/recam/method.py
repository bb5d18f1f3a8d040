"""ReCAM: class maps reactivated by a softmax cross-entropy on class features.

Paper: Class Re-Activation Maps for Weakly-Supervised Semantic Segmentation (Chen et al., CVPR 2022,
    https://arxiv.org/abs/2203.00962).

1. Start from a trained CAM network: copy its backbone and classifier.
2. Divide each class map by its maximum and use it to weight the features: the result is one feature
   vector per present class.
3. A second bias-free 1 x 1 layer classifies these vectors with softmax cross-entropy. Unlike the
   multi-label loss, it makes classes exclude each other.
4. L = soft margin + 1.0 (COCO 0.1) softmax cross-entropy, for few epochs at small learning rates:
   5e-4 for the new layer, 5e-5 for the rest.
5. Compute the final class maps with the product of both layers' weights.

Departs:
    - Paper and Specification 4.9 sum the softmax loss over the classes of an image; the released
      code averages it. Both are available (`class_loss`); the sum is the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.config.schema import MethodConfig
from tag2mask.errors import RecipeError
from tag2mask.methods.base import CamOutput, Method, ParameterGroup, StageOutputs
from tag2mask.methods.recam.losses import Reduction, class_features, reactivation_loss
from tag2mask.models.base import Backbone
from tag2mask.models.classifier import ClassActivationHead
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch

COPIED_PREFIXES = ("backbone.", "head.")
"""Prefixes of the weights that are copied from the CAM network."""


class ReCAMConfig(MethodConfig):
    """The defaults are the paper's for VOC."""

    name: str = "recam"
    pooling: Literal["gap", "gmp"] = "gap"
    """How a class map becomes a logit; must equal the pooling of the stage it starts from."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the softmax loss (VOC 1.0, COCO 0.1)."""
    class_loss: Reduction = "sum"
    """Reduction over the present classes of an image: sum (paper) or mean (released code)."""
    weights: Literal["product", "classifier", "reactivation"] = "product"
    """Layer that computes the class maps: the product of both layers' weights, or one layer."""


class ReCAM(Method):
    """A classifier and a softmax layer over class features."""

    Config = ReCAMConfig
    config: ReCAMConfig

    def __init__(
        self,
        config: ReCAMConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        width = backbone.channels[-1]
        self.head = ClassActivationHead(width, num_foreground, config.pooling)
        self.reactivation = nn.Conv2d(width, num_foreground, kernel_size=1, bias=False)

    def setup(self, earlier: StageOutputs) -> None:
        """Copy backbone and classifier of the CAM network.

        Raises:
            RecipeError: If there is not exactly one earlier network, or its weights do not fit.
        """
        copied, own = (
            {
                name: weight
                for name, weight in method.state_dict().items()
                if name.startswith(COPIED_PREFIXES)
            }
            for method in (earlier.only("recam"), self)
        )
        if {name: weight.shape for name, weight in copied.items()} != {
            name: weight.shape for name, weight in own.items()
        }:
            raise RecipeError(
                "method.name: recam continues from a network with the same backbone, pooling and "
                "classes; give both stages the same settings"
            )
        self.load_state_dict(copied, strict=False)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Train copied weights at the base rate and the new layer at the head rate."""
        head = list(self.reactivation.parameters())
        new = {id(parameter) for parameter in head}
        base = [p for p in self.parameters() if p.requires_grad and id(p) not in new]
        return ParameterGroup("base", base, "base"), ParameterGroup("head", head, "head")

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the classification loss and the softmax loss on class features.

        Source:
            Specification 4.9.
        """
        features = self.backbone(self.backbone.normalize(batch.image)).maps[-1]
        logits, cam = self.head(features)
        pooled = class_features(cam.float(), features)  # (N, F, D)
        scores = F.linear(pooled, self.reactivation.weight.flatten(1))
        loss = reactivation_loss(scores.float(), batch.tags, self.config.class_loss)
        self.monitor["reactivation"] = loss.detach()
        return {
            "classification": F.multilabel_soft_margin_loss(logits, batch.tags),
            "reactivation": self.config.class_weight * loss,
        }

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Compute the classifier's logits, and class maps by the layer that `weights` selects."""
        features = self.backbone(image).maps[-1]
        logits, cam = self.head(features)
        if self.config.weights == "classifier":
            return CamOutput(logits, cam)
        weight = self.reactivation.weight
        if self.config.weights == "product":
            weight = weight * self.head.classifier.weight
        return CamOutput(logits, F.conv2d(features, weight))
