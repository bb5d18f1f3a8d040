"""Generated scenes: a data set that needs no download, with exact masks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
from PIL import Image as PILImage
from pydantic import Field

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Part, Source
from tag2mask.data.synthetic_scene import PAINTERS, draw_scene
from tag2mask.data.tags import resolve_classes, tag_matrix
from tag2mask.errors import DataError
from tag2mask.io.masks import renumber, save_mask
from tag2mask.types import Image, Mask, Sample

SCENE_CLASSES = tuple(painter.name for painter in PAINTERS)
_KEPT = 2_000  # painted scenes kept in memory (65 kB each at 128 px): a demo shows each many times


class SyntheticConfig(DataConfig):
    """Settings of the generated scenes; `root` is not used."""

    name: str = "synthetic"
    """Data source: a file of the folder `data`."""
    crop_px: int = Field(default=128, ge=32, multiple_of=32)
    """Side of the square training crop in pixels."""
    count: int = Field(default=1500, ge=1)
    """Scenes to learn from."""
    val_count: int = Field(default=100, ge=0)
    """Held-out scenes; none of them is among those to learn from."""
    size_px: int = Field(default=128, ge=64)
    """Side of the square scenes in pixels."""
    seed: int = Field(default=0, ge=0)
    """Another seed gives other scenes."""


class Synthetic(Source):
    """Scenes of one to three classes, several textured objects each, over clutter.

    Scene i of a part depends on (seed, part, i) and the size only, not on how many there are.

    Args:
        config: Settings; `classes` empty means all five.
        split: "train" or "val".
    """

    Config: ClassVar[type[DataConfig]] = SyntheticConfig

    def __init__(self, config: DataConfig, split: str) -> None:
        if not isinstance(config, SyntheticConfig):
            raise TypeError(f"Scenes needs a ScenesConfig, got {type(config).__name__}")
        parts = get_args(Part)
        if split not in parts:
            raise DataError(f"scenes have no list '{split}'. Known: {', '.join(parts)}")
        count = config.count if split == "train" else config.val_count
        self.class_names = resolve_classes(config.classes, SCENE_CLASSES, "synthetic")
        self.names = tuple(f"{split}_{index:06d}" for index in range(count))
        self.has_masks = True
        self._size = config.size_px
        self._chance = partial(_chance, config.seed, parts.index(split))
        self._values = renumber(SCENE_CLASSES, self.class_names)
        shown = (_choose_values(self._chance(index)) for index in range(count))
        self.tags = tag_matrix(
            ([SCENE_CLASSES[value - 1] for value in values] for values in shown), self.class_names
        )
        self._painted: dict[int, tuple[Image, Mask]] = {}

    def __getitem__(self, index: int) -> Sample:
        image, mask = self._paint(index)
        values = self._values[mask] if self.reads_masks else None
        return Sample(self.names[index], image, self.tags[index], values)

    def _paint(self, index: int) -> tuple[Image, Mask]:
        if index in self._painted:
            return self._painted[index]
        rng = self._chance(index)
        painted = draw_scene(_choose_values(rng), self._size, rng)
        for array in painted:
            array.setflags(write=False)  # one caller's change must not reach the next
        if len(self._painted) < _KEPT:
            self._painted[index] = painted
        return painted


def _chance(seed: int, part: int, index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(part, index)))


def _choose_values(rng: np.random.Generator) -> list[int]:
    """Choose the mask values of one to three classes: the first thing that a scene draws."""
    number = rng.integers(1, 4)
    return [int(value) + 1 for value in rng.permutation(len(PAINTERS))[:number]]


def write_scenes(config: SyntheticConfig, out: Path) -> None:
    """Write the scenes of both parts in the `folder` layout.

    `images/train_000000.png` and so on, `tags.csv` (image,tags), `masks/` with indexed PNG and
    `masks/classes.json` with the class names in the order of their mask values.

    Raises:
        DataError: If the folder cannot be written.
    """
    try:
        _write(config, out)
    except OSError as error:
        raise DataError(f"{out}: scenes cannot be written ({error.strerror or error})") from error


def _write(config: SyntheticConfig, out: Path) -> None:
    sources = [Synthetic(config, part) for part in get_args(Part)]
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rows = ["image,tags"]
    for sample in _samples(sources):
        PILImage.fromarray(sample.image).save(out / "images" / f"{sample.name}.png")
        if sample.mask is not None:
            save_mask(sample.mask, out / "masks" / f"{sample.name}.png")
        shown = np.flatnonzero(sample.tags)
        tags = ";".join(sources[0].class_names[index] for index in shown)
        rows.append(f"{sample.name}.png,{tags}")
    names = json.dumps({"classes": sources[0].class_names})
    (out / "masks" / "classes.json").write_text(names + "\n", encoding="utf-8")
    (out / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _samples(sources: Sequence[Source]) -> Iterator[Sample]:
    for source in sources:
        for index in range(len(source)):
            yield source[index]
