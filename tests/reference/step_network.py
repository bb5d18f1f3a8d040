"""A backbone and a batch that are simple enough to write down twice, for references of whole steps.

References work in float64 torch, plane by plane, so that autograd gives their gradients.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tag2mask.config.schema import BackboneConfig
from tag2mask.models.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, Features
from tag2mask.types import Batch

SIDE = 64
CHANNELS = (4, 5, 6, 7)
STRIDES = (4, 8, 8, 8)


class StepBackbone(Backbone):
    """Means of blocks of pixels, mixed and squashed.

    The last map of the first passes is cut off as a leaf, kept in `leaves`, at which gradients are
    compared; later passes are differentiable functions of their images.
    """

    channels = CHANNELS
    strides = STRIDES

    def __init__(self, num_leaves: int = 1, seed: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mixtures = [torch.randn(width, 3, generator=generator) for width in CHANNELS]
        self.num_leaves = num_leaves
        self.leaves: list[Tensor] = []

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        maps = [self.map(level, image) for level in range(4)]
        if torch.is_grad_enabled() and len(self.leaves) < self.num_leaves:
            maps[3] = maps[3].detach().requires_grad_()
            self.leaves.append(maps[3])
        return Features(tuple(maps), ())

    def map(self, level: int, image: Tensor) -> Tensor:
        """Map f1 to f4 (level 0 to 3) of (N, 3, H, W) normalized images."""
        stride = STRIDES[level]
        count, colors, height, width = image.shape
        blocks = image.reshape(count, colors, height // stride, stride, width // stride, stride)
        mixture = self.mixtures[level].to(image.dtype)
        return torch.tanh(2 * torch.einsum("dc,nchw->ndhw", mixture, blocks.mean(dim=(3, 5))))


STEP_CONFIG = BackboneConfig(name="step")


def step_batch(tags: Tensor, padding: int = 0) -> Batch:
    """Images of smooth colors; the second one has columns of padding at its left."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(len(tags), 3, 6, 6, generator=generator, dtype=torch.float64)
    image = torch.stack([torch.stack([resize(p, (SIDE, SIDE)) for p in one]) for one in coarse])
    image = (255 * image).round().to(torch.uint8)
    valid = torch.ones(len(tags), SIDE, SIDE, dtype=torch.bool)
    valid[1, :, :padding] = False
    names = [str(number) for number in range(len(tags))]
    return Batch(image * valid[:, None], tags, valid, names, max_tags=int(tags.sum(1).max()))


def normalized(image: Tensor) -> Tensor:
    """Normalize (N, 3, H, W) uint8 images in float64."""
    mean, std = (torch.tensor(one, dtype=torch.float64) for one in (IMAGENET_MEAN, IMAGENET_STD))
    return (image.double() - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def doubled(weight: nn.Parameter) -> Tensor:
    """A leaf in float64 with the value of a parameter."""
    return weight.detach().double().requires_grad_()


def resize(plane: Tensor, size: Sequence[int], *, aligned: bool = False) -> Tensor:
    """Resize an (h, w) plane bilinearly: one matrix of weights per axis."""
    rows, columns = (
        _weights(old, new, aligned) for old, new in zip(plane.shape, size, strict=True)
    )
    return rows @ plane @ columns.T


def _weights(old: int, new: int, aligned: bool) -> Tensor:
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for position in range(new):
        if aligned:
            source = position * (old - 1) / (new - 1) if new > 1 else 0.0
        else:
            source = min(max((position + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        first = min(int(source), old - 1)
        second = min(first + 1, old - 1)
        matrix[position, first] += 1 - (source - first)
        matrix[position, second] += source - first
    return matrix


def multi_label(logits: Tensor, tags: Tensor) -> Tensor:
    """-[z log p + (1 - z) log(1 - p)], the mean over images and classes."""
    terms = []
    for row, labels in zip(logits, tags.double(), strict=True):
        for score, label in zip(row, labels, strict=True):
            prob = 1 / (1 + torch.exp(-score))
            terms.append(-(label * torch.log(prob) + (1 - label) * torch.log(1 - prob)))
    return torch.stack(terms).mean()


def close(got: Tensor, expected: Tensor) -> None:
    """Compare a gradient of the method in float32 with that of its reference."""
    assert expected.abs().max() > 0
    tolerance = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(got.double(), expected, rtol=2e-4, atol=tolerance)
