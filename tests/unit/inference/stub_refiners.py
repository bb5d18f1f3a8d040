"""Refiners that misbehave, importable from worker processes."""

import os
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tag2mask.config.schema import PredictConfig, RefinerConfig
from tag2mask.errors import DataError
from tag2mask.inference.postprocessing import PostProcessor, SelectedMaps
from tag2mask.inference.segmenter import InferenceOutput, Segmenter
from tag2mask.inference.workers import ImageInput
from tag2mask.refiners.base import Refiner
from tag2mask.types import Image


class Stub(Refiner):
    Config = RefinerConfig

    def __init__(self) -> None:
        super().__init__(RefinerConfig(name="stub"))

    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        return probs


class Picky(Stub):
    """Refuses images that are brighter than 3."""

    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        if image.max() > 3:
            raise DataError(f"too bright: {int(image.max())}")
        return probs


class Late(Stub):
    """Takes the longer the darker the image is."""

    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        time.sleep(0.05 * (8 - float(image.max())))
        return probs


class Dying(Stub):
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        os._exit(9)


class Sleeping(Stub):
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        time.sleep(600)
        return probs


class Bare(Segmenter):
    """A segmenter without network: the right half of every image is a cat."""

    def __init__(self, refiner: Refiner) -> None:
        self.device = torch.device("cpu")
        self.class_names = ("cat",)
        self.config = PredictConfig()
        self.postprocessor = PostProcessor(PredictConfig(), refiner, None)

    def infer(
        self, image: Image, tags: Any = None, *, keep_cam: bool = False, name: str = ""
    ) -> InferenceOutput:
        cam = torch.zeros(1, 1, 8, 12)
        cam[..., 6:] = 1.0
        selected = SelectedMaps((0,), cam, "cam", (8, 12), background=0.45)
        return InferenceOutput(image, selected, {"cat": 0.9}, "tags", None)


class Located(Bare):
    """Gives the process that runs the network as a score."""

    def infer(
        self, image: Image, tags: Any = None, *, keep_cam: bool = False, name: str = ""
    ) -> InferenceOutput:
        return super().infer(image)._replace(scores={"cat": os.getpid()})


def image_input(brightness: int) -> ImageInput:
    """An image of one gray."""
    return ImageInput(np.full((8, 12, 3), brightness, dtype=np.uint8), None, str(brightness))
