"""The contract of a data source: names, tags without decoding images, and samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tag2mask.config.schema import DataConfig
from tag2mask.types import Sample

Part = Literal["train", "val"]
"""Training images or held-out images; a source may also accept the names of its own lists."""


class Source(ABC):
    """A set of tagged images.

    A new source is one file in `data` with one direct subclass. The constructor takes its Config
    and the name of a part or list. It raises DataError with one line per problem that the user must
    fix.
    """

    Config: ClassVar[type[DataConfig]]
    class_names: tuple[str, ...]
    """Foreground classes in the order of mask values 1..F."""
    names: tuple[str, ...]
    """Names of the samples, in order; unique."""
    tags: npt.NDArray[np.uint8]
    """(len, F) in {0, 1}, read without decoding an image; a row of zeros is a negative."""
    has_masks: bool
    """Whether every sample has a mask."""
    reads_masks: bool = True
    """Whether `self[i]` decodes the mask; the loader turns it off if masks are not needed."""
    masked: Sequence[int] = ()
    """Indices of the samples with a mask where only some have one; empty if `has_masks`."""
    image_files: Mapping[str, Path] = MappingProxyType({})
    """Name -> image file; empty if the images are generated."""
    skipped: tuple[str, ...] = ()
    """Names of images that are left out because they cannot be read."""
    unknown_tags: Mapping[str, int] = {}
    """Tags that are no class, and the number of images that have each; they are dropped."""

    @abstractmethod
    def __init__(self, config: DataConfig, split: str) -> None: ...

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mask_indices(self) -> Sequence[int]:
        """Indices of the samples that have a mask."""
        return range(len(self)) if self.has_masks else self.masked

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Decode one sample.

        Raises:
            DataError: Naming the file, if the image cannot be read.
        """
