"""OC-CSE: class-specific erasing, supervised by a frozen ordinary classifier.

Paper: Unlocking the Potential of Ordinary Classifier: Class-Specific Adversarial Erasing Framework
    for Weakly Supervised Semantic Segmentation (Kweon et al., ICCV 2021,
    https://github.com/KAIST-vilab/OC-CSE).

1. Freeze a trained CAM network, the ordinary classifier.
2. Train a second network on the tags. For each image draw one present class and erase the pixels
   that the second network's CAM assigns to it.
3. Classify the erased image with the ordinary classifier: it must predict all tags but the erased
   class. The gradient flows through the frozen network and the erasing mask into the CAM,
   which grows over the whole object and avoids the others.
4. L = L_cls + (0.3 + 0.05 epoch) L_cse.

Departs:
    - An epoch is one of `epochs` equal parts of the run, so that short runs reach the full weight.
    - If the two backbones expect different color statistics, each network gets the image normalized
      for it; erased pixels have the mean color of both.
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
    """How a class map of the trained network becomes a logit (as in the method `cam`)."""
    erasing_weight: float = Field(default=0.3, ge=0)
    """Weight of the loss on the erased image in the first epoch; with 0 and no growth only the
    classification is trained."""
    erasing_growth: float = Field(default=0.05, ge=0)
    """Increase of that weight per epoch."""
    epochs: int = Field(default=15, ge=1, le=2**16)
    """Number of equal parts of the run that count as epochs."""


class OCCSE(Method):
    """A classifier whose CAM erases images that a frozen classifier must then classify."""

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
        """Keep the frozen ordinary classifier; it becomes part of the weights file.

        Raises:
            RecipeError: If there is not exactly one earlier network, or it has other classes.
        """
        ordinary = earlier.only("oc_cse")
        if ordinary.num_foreground != self.num_foreground:
            raise RecipeError(
                f"method.name: oc_cse learns {self.num_foreground} classes, but the earlier "
                f"network has {ordinary.num_foreground}; give both stages the same data.classes"
            )
        self.ordinary = FrozenMethod(ordinary, self.backbone)

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute the classification loss and the ordinary classifier's loss on the erased image.

        Source:
            Specification 4.8.
        """
        assert self.ordinary is not None, "setup comes before training"
        logits, cam = self.compute_cam(self.backbone.normalize(batch.image))
        erased_class = draw_present_class(batch.tags)
        mask = erasing_mask(cam.float(), erased_class, batch.image.shape[-2:])
        # `FrozenMethod.compute_cam` stops gradients, which must flow here.
        ordinary = self.ordinary.method
        erased_logits = ordinary.class_logits(ordinary.backbone.normalize(batch.image) * (1 - mask))
        loss = F.multilabel_soft_margin_loss(erased_logits, batch.tags - erased_class)
        self.monitor["class_erasing"] = loss.detach()
        self.monitor["erased"] = mask.detach().mean()
        return {
            "classification": F.multilabel_soft_margin_loss(logits, batch.tags),
            "class_erasing": self.weight(step) * loss,
        }

    def weight(self, step: int) -> float:
        """Return the weight of the loss on the erased image at a step (0 is the first)."""
        epoch = self.config.epochs * step // self.steps
        return self.config.erasing_weight + self.config.erasing_growth * epoch

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Run the encoder and the head of the trained network once."""
        return CamOutput(*self.head(self.backbone(image).maps[-1]))
