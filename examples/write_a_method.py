"""Write a method of your own and train it; it needs no registration.

Run: python examples/write_a_method.py RUN [STEPS]
"""

import sys

from torch import nn
from torch.nn import functional as F

import tag2mask
from tag2mask.config.schema import MethodConfig
from tag2mask.methods.base import CamOutput, Method


class MaxPooling(Method):
    """A classifier with global max pooling; a recipe names it by its class name, `maxpooling`."""

    Config = MethodConfig

    def __init__(self, config, backbone, num_foreground, refiner, steps):
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self.classifier = nn.Conv2d(backbone.channels[-1], num_foreground, 1, bias=False)

    def losses(self, batch, step):
        output = self.compute_cam(self.backbone.normalize(batch.image))
        return {"classification": F.multilabel_soft_margin_loss(output.logits, batch.tags)}

    def compute_cam(self, image, tags=None):
        cam = self.classifier(self.backbone(image).maps[-1])  # (N, F, h, w)
        return CamOutput(logits=cam.amax(dim=(2, 3)), cam=cam)


if __name__ == "__main__":
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    overrides = {"method.name": "maxpooling", "data.val_count": 10, "optim.steps": steps}
    run = tag2mask.train("cam/synthetic_tiny", sys.argv[1], overrides=overrides)
    print(f"method {tag2mask.load(run).recipe.method.name}, weights in {run / 'weights'}")
