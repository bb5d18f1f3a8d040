"""Synthetic images: a data set with exact masks that needs no download."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
from PIL import Image as PILImage
from pydantic import Field

from tag2mask.config.schema import DataConfig, Seed
from tag2mask.data.base import Part, Source
from tag2mask.data.synthetic_scene import OBJECT_CLASSES, draw_scene
from tag2mask.data.tags import resolve_classes, tag_matrix
from tag2mask.errors import DataError
from tag2mask.io.masks import renumber, save_mask
from tag2mask.types import Image, Mask, Sample

SCENE_CLASSES = tuple(object_class.name for object_class in OBJECT_CLASSES)
_CACHE_SIZE = 2_000  # images kept in memory (65 kB each at 128 px); a demo reads each many times


class SyntheticConfig(DataConfig):
    """Settings of the synthetic images; `root` is not used."""

    name: str = "synthetic"
    """Data source: a file of the folder `data`."""
    crop_px: int = Field(default=128, ge=32, le=8192, multiple_of=32)
    """Side of the square training crop in pixels."""
    count: int = Field(default=1500, ge=1, le=10_000_000)
    """Number of training images."""
    val_count: int = Field(default=100, ge=0, le=10_000_000)
    """Number of held-out images; they differ from the training images."""
    size_px: int = Field(default=128, ge=64, le=4096)
    """Side of the square images in pixels."""
    seed: Seed = 0
    """Random seed; a different seed gives different images."""


class Synthetic(Source):
    """Images of several textured objects of one to three classes over clutter.

    Image i of a part depends only on (seed, part, i) and the size, not on the number of images.

    Args:
        config: Settings; without `classes` all five classes are learned.
        split: "train" or "val".
    """

    Config: ClassVar[type[DataConfig]] = SyntheticConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        if not isinstance(config, SyntheticConfig):
            raise TypeError(f"Synthetic needs a SyntheticConfig, got {type(config).__name__}")
        parts = get_args(Part)
        if split not in parts:
            raise DataError(
                f"unknown part '{split}' of synthetic data; its parts are {', '.join(parts)}"
            )
        count = config.count if split == "train" else config.val_count
        self.class_names = resolve_classes(config.classes, SCENE_CLASSES, "synthetic")
        self.names = tuple(f"{split}_{index:06d}" for index in range(count))
        self.has_masks = True
        self._size = config.size_px
        self._rng = partial(_image_rng, config.seed, parts.index(split))
        self._renumbered = renumber(SCENE_CLASSES, self.class_names)
        all_values = (_choose_values(self._rng(index)) for index in range(count))
        self.tags = tag_matrix(
            ([SCENE_CLASSES[value - 1] for value in values] for values in all_values),
            self.class_names,
        )
        self._cache: dict[int, tuple[Image, Mask]] = {}

    def __getitem__(self, index: int) -> Sample:
        image, mask = self._draw(index)
        renumbered = self._renumbered[mask] if self.reads_masks else None
        return Sample(self.names[index], image, self.tags[index], renumbered)

    def _draw(self, index: int) -> tuple[Image, Mask]:
        if index in self._cache:
            return self._cache[index]
        rng = self._rng(index)
        drawn = draw_scene(_choose_values(rng), self._size, rng)
        for array in drawn:
            array.setflags(write=False)  # a caller must not change the cached arrays
        if len(self._cache) < _CACHE_SIZE:
            self._cache[index] = drawn
        return drawn


def _image_rng(seed: int, part: int, index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(part, index)))


def _choose_values(rng: np.random.Generator) -> list[int]:
    """Draw the mask values of one to three classes, the first random numbers of an image."""
    number = rng.integers(1, 4)
    return [int(value) + 1 for value in rng.permutation(len(OBJECT_CLASSES))[:number]]


def write_scenes(config: SyntheticConfig, out: Path) -> None:
    """Write the images of both parts in the `folder` layout.

    It consists of `images/train_000000.png` and so on, `tags.csv` (image,tags), indexed PNG files
    in `masks/`, and `masks/classes.json` with the class names in the order of their mask values.

    Raises:
        DataError: If the folder cannot be written.
    """
    try:
        _write(config, out)
    except OSError as error:
        raise DataError(
            f"{out}: the images cannot be written ({error.strerror or error}); free space, or "
            "choose another folder"
        ) from error


def _write(config: SyntheticConfig, out: Path) -> None:
    sources = [Synthetic(config, part) for part in get_args(Part)]
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rows = ["image,tags"]
    for sample in _samples(sources):
        PILImage.fromarray(sample.image).save(out / "images" / f"{sample.name}.png")
        if sample.mask is not None:
            save_mask(sample.mask, out / "masks" / f"{sample.name}.png")
        class_indices = np.flatnonzero(sample.tags)
        tags = ";".join(sources[0].class_names[index] for index in class_indices)
        rows.append(f"{sample.name}.png,{tags}")
    names = json.dumps({"classes": sources[0].class_names})
    (out / "masks" / "classes.json").write_text(names + "\n", encoding="utf-8")
    (out / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _samples(sources: Sequence[Source]) -> Iterator[Sample]:
    for source in sources:
        for index in range(len(source)):
            yield source[index]
