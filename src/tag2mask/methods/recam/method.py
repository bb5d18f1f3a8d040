"""ReCAM: class maps re-activated by a softmax loss on what lies under them.

Paper: Class Re-Activation Maps for Weakly-Supervised Semantic Segmentation (Chen et al., CVPR 2022,
    arXiv 2203.00962).

1. Training goes on from a trained class activation network: its backbone and classifier are copied.
2. Each class map, divided by its peak, weighs the features: one feature vector per present class.
3. A second bias-free 1 x 1 layer must tell each of these vectors from all other classes by softmax
   cross-entropy, which, unlike the loss of the tags, makes classes exclude each other.
4. L = soft margin + 1.0 (COCO 0.1) softmax cross-entropy, for few epochs and at small rates: 5e-4
   for the new layer, 5e-5 for the rest.
5. Class maps are then read with the product of both layers' weights.

Departures: paper and Specification 4.9 sum the softmax loss over the classes of an image,
the released code takes their mean; both are here (`class_loss`), the sum by default.
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

COPIED = ("backbone.", "head.")
"""Parts that the class activation network hands over."""


class ReCAMConfig(MethodConfig):
    """Weight and switches; the defaults are the paper's for VOC."""

    name: str = "recam"
    pooling: Literal["gap", "gmp"] = "gap"
    """As in the stage that the network comes from."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the softmax loss (VOC 1.0, COCO 0.1)."""
    class_loss: Reduction = "sum"
    """Over the present classes of an image: sum (specification) or mean (released code)."""
    weights: Literal["product", "classifier", "reactivation"] = "product"
    """Layer that class maps are read with: both multiplied, or one of them."""


class ReCAM(Method):
    """A classifier and, beside it, a softmax layer over class features."""

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
        """Copy backbone and classifier of the class activation network.

        Raises:
            RecipeError: If there is not exactly one earlier network, or it has other parts.
        """
        given, own = (
            {name: part for name, part in method.state_dict().items() if name.startswith(COPIED)}
            for method in (earlier.only("recam"), self)
        )
        if {name: part.shape for name, part in given.items()} != {
            name: part.shape for name, part in own.items()
        }:
            raise RecipeError(
                "method.name: recam goes on from a network with the same backbone, pooling and "
                "classes; give both stages the same"
            )
        self.load_state_dict(given, strict=False)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All that was copied at the base rate, the new layer at the head rate."""
        head = list(self.reactivation.parameters())
        new = {id(parameter) for parameter in head}
        base = [p for p in self.parameters() if p.requires_grad and id(p) not in new]
        return ParameterGroup("base", base, "base"), ParameterGroup("head", head, "head")

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Specification 4.9: the tags, and the classes under the maps."""
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
        """Logits of the classifier; maps by the weights that the recipe names."""
        features = self.backbone(image).maps[-1]
        logits, cam = self.head(features)
        if self.config.weights == "classifier":
            return CamOutput(logits, cam)
        weight = self.reactivation.weight
        if self.config.weights == "product":
            weight = weight * self.head.classifier.weight
        return CamOutput(logits, F.conv2d(features, weight))
