"""Refiners that misbehave, importable from worker processes."""

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tag2mask.config.schema import PredictConfig, RefinerConfig
from tag2mask.errors import DataError
from tag2mask.inference.batches import ImageInput
from tag2mask.inference.postprocessing import PostProcessor, SelectedMaps
from tag2mask.inference.segmenter import InferenceOutput, Segmenter
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

    batch_size = 1

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


class Together(Bare):
    """Shares passes among up to three images, and keeps which ones saw the network together."""

    batch_size = 3

    def __init__(self, refiner: Refiner, *, has_memory: bool = True) -> None:
        super().__init__(refiner)
        self.has_memory = has_memory
        self.passes: list[list[str]] = []

    def working_size(self, image: Image) -> tuple[int, int]:
        return (image.shape[0], image.shape[1])

    def infer(
        self, image: Image, tags: Any = None, *, keep_cam: bool = False, name: str = ""
    ) -> InferenceOutput:
        self.passes.append([name])
        return super().infer(image)

    def infer_together(self, inputs: Sequence[ImageInput]) -> list[InferenceOutput]:
        if not self.has_memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.passes.append([one.name for one in inputs])
        return [super(Together, self).infer(one.image) for one in inputs]


def image_input(brightness: int) -> ImageInput:
    """An image of one gray."""
    return ImageInput(np.full((8, 12, 3), brightness, dtype=np.uint8), None, str(brightness))
