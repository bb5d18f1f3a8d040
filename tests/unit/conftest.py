"""A small real network with random weights, and a few painted images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method
from tag2mask.types import Sample

CLASSES = ("cat", "cow", "dog")


class Painted(Source):
    """Images of random color blocks of odd sizes; image k shows class k, the last one none."""

    Config = DataConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        self.class_names = CLASSES
        self.names = ("lane1/a", "lane1/b", "lane2/a", "none")
        self.tags = np.eye(4, 3, dtype=np.uint8)
        self.has_masks = True

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng(index)
        image = random.integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(9, 0).repeat(9, 1)
        mask = np.zeros(image.shape[:2], dtype=np.uint8)
        mask[:9] = (index + 1) % 4
        return Sample(self.names[index], image, self.tags[index], mask)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    raw = {
        "data": {"name": "folder", "classes": list(CLASSES)},
        "backbone": {"name": "hybrid", "depth_multiplier": 0.25, "blocks": 0},
        "method": {"name": "cam"},
        "refiner": {"name": "par"},
    }
    return parse_recipe(raw, "test")


@pytest.fixture
def segmenter(recipe: Recipe) -> Segmenter:
    torch.manual_seed(0)
    method = build_method(recipe)
    for part in method.modules():
        if isinstance(part, torch.nn.Conv2d):  # otherwise depth makes all evidence vanish
            torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return Segmenter(method, recipe)


@pytest.fixture
def source() -> Source:
    return Painted(DataConfig(name="painted"), "train")


@pytest.fixture
def image_folder(tmp_path: Path, source: Source) -> Callable[[], Path]:
    """Write the painted images as files and return their folder."""
    from PIL import Image as PILImage

    def write() -> Path:
        for index, name in enumerate(source.names):
            path = tmp_path / "images" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PILImage.fromarray(source[index].image).save(path)
        return tmp_path / "images"

    return write
