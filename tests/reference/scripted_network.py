"""A network simple enough to write down twice: block means, a fixed mixture, a tanh."""

import numpy as np
import torch
from torch import Tensor, nn

from tag2mask.functional.cam import upsample
from tag2mask.models.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, Features, QueryKey
from tag2mask.types import Batch

SIDE = 96
WIDTH = 6
HEADS = 2
NUM_FOREGROUND = 3
TAGS = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])


def block_means(image: Tensor, block: int) -> Tensor:
    count, channels, height, width = image.shape
    blocks = image.view(count, channels, height // block, block, width // block, block)
    return blocks.mean(dim=(3, 5))


class ScriptedBackbone(Backbone):
    """With gradients, the last map is a leaf, kept in `leaves`: first the crop, then the view."""

    channels = (WIDTH, WIDTH, WIDTH, WIDTH)
    attention_channels = 2 * HEADS
    head_dim = WIDTH // HEADS

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.mixture = torch.randn(WIDTH, 3, generator=generator)
        self.turn = torch.randn(WIDTH, WIDTH, generator=generator)
        self.leaves: list[Tensor] = []

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        maps = [self.mixed(block_means(image, block)) for block in (4, 8, 16, 16)]
        if torch.is_grad_enabled():
            maps[3] = maps[3].detach().requires_grad_()
            self.leaves.append(maps[3])
        blocks = self.blocks(maps[3].detach()) if attention else ()
        return Features(tuple(maps), blocks)

    def mixed(self, means: Tensor) -> Tensor:
        """Mix channels; the right side counts more, so that a flipped image has another CAM."""
        ramp = torch.linspace(0.4, 1.6, means.shape[3], dtype=means.dtype)
        return torch.tanh(torch.einsum("dc,nchw->ndhw", self.mixture.to(means.dtype), means) * ramp)

    def blocks(self, features: Tensor) -> tuple[QueryKey, ...]:
        """Two blocks; queries and keys differ, so that S is not symmetric."""
        tokens = features.flatten(2).transpose(1, 2)
        other = tokens @ self.turn.to(tokens.dtype)
        return QueryKey(heads(tokens), heads(other)), QueryKey(heads(other), heads(other.flip(2)))


def as_leaf(kept: list[Tensor], module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
    """Forward hook: with gradients, keep the output as a leaf in place of the graph behind it."""
    if not torch.is_grad_enabled():
        return None
    kept.append(output.detach().requires_grad_())
    return kept[-1]


def heads(tokens: Tensor) -> Tensor:
    return tokens.unflatten(2, (HEADS, -1)).transpose(1, 2)


def raw_cam(backbone: ScriptedBackbone, weight: Tensor, image: np.ndarray) -> np.ndarray:
    """CAM of one normalized (3, H, W) image in float64."""
    means = block_means(torch.from_numpy(np.ascontiguousarray(image))[None], 16)
    features = backbone.mixed(means)[0]
    return torch.einsum("fd,dhw->fhw", weight.double(), features).numpy()


def normalized(image: Tensor) -> np.ndarray:
    """Normalize one (3, H, W) uint8 image in float64."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image.double().numpy() - mean) / std


def scripted_batch(padding: int = 0, side: int = SIDE) -> Batch:
    """Two images of colored squares; the second has columns of padding at its left."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, 256, (2, 3, 6, 6), generator=generator).float()
    image = upsample(coarse, (side, side)).round().to(torch.uint8)
    valid = torch.ones(2, side, side, dtype=torch.bool)
    valid[1, :, :padding] = False
    image = image * valid[:, None]
    return Batch(image, TAGS, valid, ("one", "two"), max_tags=2)
