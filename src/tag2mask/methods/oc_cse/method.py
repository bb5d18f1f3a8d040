"""OC-CSE: the ordinary classifier must not find what the class map claims to have erased.

Paper: Unlocking the Potential of Ordinary Classifier: Class-Specific Adversarial Erasing Framework
    for Weakly Supervised Semantic Segmentation (Kweon et al., ICCV 2021).

1. A trained class activation network, the ordinary classifier, is frozen.
2. A second network learns the tags as usual; of each image one present class is drawn, and the
   image is erased where the second network sees it.
3. The ordinary classifier looks at the erased image and must see all other tags but that class. The
   gradient goes through the frozen network and the mask into the class map, which grows over the
   whole object and keeps off the others.
4. L = L_cls + (0.3 + 0.05 epoch) L_cse.

Departures: the epoch is counted in equal parts of the run (`epochs`), so that short runs see the
whole rise. Where the backbones expect different colors, each network gets its own normalized
image; erased pixels have the mean color of both.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import MethodConfig
from tag2mask.errors import RecipeError
from tag2mask.methods.base import CamOutput, Method, StageOutputs
from tag2mask.methods.frozen import FrozenMethod
from tag2mask.methods.oc_cse.erasing import draw_present_class, erasing_mask
from tag2mask.models.base import Backbone
from tag2mask.models.classifier import ClassActivationHead, Pooling
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch


class OCCSEConfig(MethodConfig):
    """The published schedule of the erasing loss."""

    name: str = "oc_cse"
    pooling: Pooling = "gap"
    """How the map of the network that learns becomes a logit."""
    erasing_weight: float = Field(default=0.3, ge=0)
    """Weight of the loss on the erased image at the start; 0 without growth: classification."""
    erasing_growth: float = Field(default=0.05, ge=0)
    """What that weight grows by with each epoch."""
    epochs: int = Field(default=15, ge=1)
    """Equal parts of the run that count as epochs."""


class OCCSE(Method):
    """A classifier whose class maps a frozen classifier judges."""

    Config = OCCSEConfig
    config: OCCSEConfig

    def __init__(
        self,
        config: OCCSEConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self.head = ClassActivationHead(backbone.channels[-1], num_foreground, config.pooling)
        self.ordinary: FrozenMethod | None = None

    def setup(self, earlier: StageOutputs) -> None:
        """Keep the ordinary classifier, frozen; it becomes part of the weights file.

        Raises:
            RecipeError: If there is not exactly one earlier network, or it knows other classes.
        """
        ordinary = earlier.only("oc_cse")
        if ordinary.num_foreground != self.num_foreground:
            raise RecipeError(
                f"method.name: oc_cse learns {self.num_foreground} classes and the network it is "
                f"judged by {ordinary.num_foreground}; give both stages the same data.classes"
            )
        self.ordinary = FrozenMethod(ordinary, self.backbone)

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Classification, and what the ordinary classifier says of the erased image (4.8)."""
        assert self.ordinary is not None, "setup comes before training"
        logits, cam = self.compute_cam(self.backbone.normalize(batch.image))
        chosen = draw_present_class(batch.tags)
        mask = erasing_mask(cam.float(), chosen, batch.image.shape[-2:])
        validation_loop = self.ordinary.method  # asked directly: the gradient goes through it
        seen = validation_loop.class_logits(
            validation_loop.backbone.normalize(batch.image) * (1 - mask)
        )
        loss = F.multilabel_soft_margin_loss(seen, batch.tags - chosen)
        self.monitor["class_erasing"] = loss.detach()
        self.monitor["erased"] = mask.detach().mean()
        return {
            "classification": F.multilabel_soft_margin_loss(logits, batch.tags),
            "class_erasing": self.weight(step) * loss,
        }

    def weight(self, step: int) -> float:
        """Weight of the loss on the erased image at a step (0 is the first)."""
        epoch = self.config.epochs * step // self.steps
        return self.config.erasing_weight + self.config.erasing_growth * epoch

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """One encoder pass and the head of the network that learned."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))
