"""Small networks and images for tests of every plug-in; nothing is trained or downloaded."""

from typing import Any

import torch
from torch import Tensor, nn

from tag2mask import plugins
from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.functional.cam import upsample
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_method
from tag2mask.types import IGNORE, Batch

NUM_FOREGROUND = 3
CLASSES = ("blob", "ring", "stripe")


SMALL_HYBRID = {"name": "hybrid", "weights": "none", "depth_multiplier": 0.25}
SMALL_VIT = {
    "model_type": "deit",
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
}


def small_recipe(method: str, *, backbone: dict[str, Any] = SMALL_HYBRID, **changes: Any) -> Recipe:
    """Return a recipe with the smallest network that has attention, and 10 steps."""
    return parse_recipe(
        {
            "data": {"name": "synthetic", "classes": CLASSES, "crop_px": 64},
            "backbone": backbone,
            "method": {"name": method} | changes,
            "refiner": {"name": "par", "iterations": 2},
            "optim": {"steps": 10, "batch_size": 2},
        },
        "small recipe",
    )


def small_method(name: str, *, backbone: dict[str, Any] = SMALL_HYBRID, **changes: Any) -> Method:
    """Build an untrained method on the smallest network, after a CAM stage if it needs one."""
    torch.manual_seed(1)
    needs_stage = plugins.load("methods", name).setup is not Method.setup
    earlier = {}
    if needs_stage:
        earlier["cam"] = build_method(small_recipe("cam", backbone=backbone))
    torch.manual_seed(0)
    return build_method(small_recipe(name, backbone=backbone, **changes), earlier)


def small_batch(side: int = 64, seed: int = 0) -> Batch:
    """Return two images of colored squares with tags and masks; part of the second is padding."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (2, 3, 4, 4), generator=generator).float()
    image: Tensor = upsample(coarse, (side, side)).to(torch.uint8)
    valid = torch.ones(2, side, side, dtype=torch.bool)
    valid[1, :, : side // 4] = False
    tags = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    mask = 2 * (image[:, 0] > 127).long()  # class 2 where the image is red
    mask[0, side // 2 :, : side // 4] = 1
    mask[:, : side // 8] = IGNORE
    mask[~valid] = IGNORE
    return Batch(image, tags, valid, ("one", "two"), mask, max_tags=2)


METHODS = plugins.available("methods")
BACKBONES = plugins.available("models.backbones")


def randomized_batchnorm(network: nn.Module) -> None:
    """Draw weights and batch statistics so that every layer contributes to the output."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.4, 1.6)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
