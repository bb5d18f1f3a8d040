from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tag2mask.config.recipe import parse_recipe
from tag2mask.config.schema import MethodConfig
from tag2mask.inference.inspection import inspect_image
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import CamOutput, Method
from tag2mask.models.base import Backbone, Features
from tag2mask.types import Batch, Sample
from tag2mask.visualization.affinity_maps import affinity_panels
from tag2mask.visualization.panels import Panel

GRID = (4, 6)
PEAKS = {0: (1, 4), 1: (3, 2)}
"""Class index -> row and column of the peak of its CAM."""


class NoBackbone(Backbone):
    """Gives nothing but the sizes that a network would."""

    channels = (1, 1, 1, 1)
    attention_channels = 3

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        return Features(())


class WithAffinity(Method):
    """Attends to the previous position, in raster order.

    A position has affinity 1 with itself, and 0.5 with the last position.
    """

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        return {}

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        cam = torch.zeros(len(image), 2, *GRID)
        for index, (row, column) in PEAKS.items():
            cam[:, index, row, column] = 1
        return CamOutput(torch.tensor([[1.0, 2.0]]).expand(len(image), -1), cam)

    def attention_maps(self, image: Tensor) -> Mapping[str, Tensor]:
        length = GRID[0] * GRID[1]
        affinity = torch.eye(length)
        affinity[:, -1] = affinity[-1] = 0.5
        return {"attention": torch.eye(length).roll(-1, dims=1)[None], "affinity": affinity[None]}


class WithoutAffinity(WithAffinity):
    def attention_maps(self, image: Tensor) -> Mapping[str, Tensor]:
        return {}


RAW = {
    "data": {"name": "folder", "classes": ["cat", "cow"]},
    "backbone": {"name": "tiny"},
    "method": {"name": "cam"},
    "predict": {"scales": [1.0], "flip": False},
}


def gray_image(*tags: int) -> Sample:
    image = np.full((64, 96, 3), 128, dtype=np.uint8)
    return Sample("a", image, np.array(tags, dtype=np.uint8))


def panels_of(
    kind: type[Method], sample: Sample, query: tuple[float, float] | None = None
) -> list[Panel]:
    method = kind(MethodConfig(name="stub"), NoBackbone(), 2, None, 10)
    segmenter = Segmenter(method, parse_recipe(RAW, "test"))
    return affinity_panels(segmenter, sample, inspect_image(segmenter, sample), query)


def brightest(panel: Panel) -> tuple[int, int]:
    """Row and column of the position whose center is lightest."""
    light = panel.picture.astype(int).sum(axis=2)[8::16, 8::16]
    row, column = divmod(int(light.argmax()), GRID[1])
    return row, column


def test_default_query_is_the_cam_peak_of_the_most_likely_tag() -> None:
    for tags, index, name in (((1, 0), 0, "cat"), ((0, 1), 1, "cow"), ((1, 1), 1, "cow")):
        query = panels_of(WithAffinity, gray_image(*tags))[0]
        row, column = PEAKS[index]
        assert query.note == f"peak of {name}"
        assert query.point == ((column + 0.5) / 6, (row + 0.5) / 4)


def test_image_without_tags_shows_its_most_likely_class() -> None:
    assert panels_of(WithAffinity, gray_image(0, 0))[0].note == "peak of cow"


def test_maps_belong_to_the_query_position() -> None:
    query, attention, affinity = panels_of(WithAffinity, gray_image(1, 0), (0.4, 0.6))
    titles = (query.title, attention.title, affinity.title)
    assert titles == ("query point", "attention", "affinity")
    assert query.note == "query 0.4, 0.6"
    assert query.point == attention.point == affinity.point == (2.5 / 6, 2.5 / 4)
    assert brightest(attention) == (2, 1)  # the position before (2, 2)
    assert attention.note == "peak 24.0 x mean"
    assert brightest(affinity) == (2, 2)
    assert affinity.note == "from 0.00 to 1.00"
    last = affinity.picture[-8, -8].astype(int).sum()
    assert affinity.picture[8, 8].astype(int).sum() < last  # affinity 0 and 0.5


def test_network_without_attention_and_affinity_has_no_panels() -> None:
    assert panels_of(WithoutAffinity, gray_image(1, 0)) == []
