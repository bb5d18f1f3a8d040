"""Methods without weights, whose outputs can be computed by hand from colors."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import BackboneConfig, MethodConfig, PredictConfig
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.protocol import (
    MultiScaleDecoder,
)
from tag2mask.models.base import Backbone, Features
from tag2mask.types import Batch

PLAIN = PredictConfig(refine=False)


class Pixels(Backbone):
    """No network: colors in [0, 1]."""

    Config = BackboneConfig

    def __init__(self) -> None:
        super().__init__((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        return Features((image,) * 4, ())


class Colors(Method):
    """Red, green, blue: evidence is the mean color of 16 px cells, the logit its first column."""

    Config = MethodConfig

    def __init__(self) -> None:
        super().__init__(MethodConfig(name="colors"), Pixels(), 3, None, 1)
        self.shapes: list[tuple[int, ...]] = []

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        return {}

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        self.shapes.append(tuple(image.shape))
        assert tags is None or len(tags) == len(image)
        cam = F.adaptive_avg_pool2d(image, (-(-image.shape[2] // 16), -(-image.shape[3] // 16)))
        return CamOutput(10 * cam[..., 0].mean(2) - 5, cam)

    def attention_maps(self, image: Tensor) -> Mapping[str, Tensor]:
        cells = -(-image.shape[2] // 16) * -(-image.shape[3] // 16)
        return {"affinity": torch.ones(1, cells, cells)}


def red_left_half(height: int = 64, width: int = 96) -> Tensor:
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    image[:, 0, :, : width // 2] = 255
    return image


class Decoding(Colors):
    """A decoder without weights that mixes the mean colors of 4 x 4 px blocks with the column
    number, so that flips and scales disagree."""

    protocol = MultiScaleDecoder()

    mixture = torch.tensor([[0.1, 0.3, 0.2], [2.0, -1.0, 0.5], [-1.5, 2.5, 0.4], [0.3, -0.6, 1.9]])

    def segmentation(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        cells = F.avg_pool2d(image, 4, ceil_mode=True, count_include_pad=False)
        place = torch.linspace(0, 1, cells.shape[3]).expand(len(image), 1, cells.shape[2], -1)
        planes = torch.einsum("cd,ndhw->nchw", self.mixture.to(cells), cells)
        return planes * (0.5 + place) + place.roll(1, dims=3) * planes.flip(1)


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)
