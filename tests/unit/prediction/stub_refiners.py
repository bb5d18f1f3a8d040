"""Refiners that misbehave, importable from worker processes."""

import os
import time

import torch
from torch import Tensor

from tag2mask.errors import DataError
from tag2mask.prediction.decision import Cutter, Draft
from tag2mask.prediction.segmenter import Examined, Segmenter
from tag2mask.recipe import PredictConfig, RefinerConfig
from tag2mask.refiners.base import Refiner


class Stub(Refiner):
    Config = RefinerConfig

    def __init__(self) -> None:
        super().__init__(RefinerConfig(name="stub"))

    def refine(self, image: Tensor, prob: Tensor) -> Tensor:
        return prob


class Picky(Stub):
    """Refuses photos that are brighter than 3."""

    def refine(self, image: Tensor, prob: Tensor) -> Tensor:
        if image.max() > 3:
            raise DataError(f"too bright: {int(image.max())}")
        return prob


class Late(Stub):
    """Takes the longer the darker the photo is."""

    def refine(self, image: Tensor, prob: Tensor) -> Tensor:
        time.sleep(0.05 * (8 - float(image.max())))
        return prob


class Dying(Stub):
    def refine(self, image: Tensor, prob: Tensor) -> Tensor:
        os._exit(9)


class Sleeping(Stub):
    def refine(self, image: Tensor, prob: Tensor) -> Tensor:
        time.sleep(600)
        return prob


class Bare(Segmenter):
    """A segmenter without network."""

    def __init__(self, refiner: Refiner) -> None:
        self.device = torch.device("cpu")
        self.class_names = ("cat",)
        self.cutter = Cutter(PredictConfig(), refiner, None)


def examined(brightness: int) -> Examined:
    """A photo of one grey whose right half is a cat."""
    image = torch.full((8, 12, 3), brightness, dtype=torch.uint8).numpy()
    cam = torch.zeros(1, 1, 8, 12)
    cam[..., 6:] = 1.0
    return Examined(image, Draft((0,), cam, "evidence", (8, 12)), {"cat": 0.9}, "oracle", None)
