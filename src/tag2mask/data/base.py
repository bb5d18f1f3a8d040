"""What a data source promises: names, tags without decoding images, and samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tag2mask.config.schema import DataConfig
from tag2mask.types import Sample

Part = Literal["train", "val"]
"""Images to learn from, or held out; a source may also be asked for a list by its own name."""


class Source(ABC):
    """A set of tagged images.

    A new source is one file in `data` with one direct subclass. The constructor takes its Config
    and the name of a part or list, and raises DataError with one clear line for what the user has
    to mend.
    """

    Config: ClassVar[type[DataConfig]]
    class_names: tuple[str, ...]
    """Foreground classes in the order of mask values 1..F."""
    names: tuple[str, ...]
    """Names of the samples, in order; unique."""
    tags: npt.NDArray[np.uint8]
    """(len, F) in {0, 1}, read without decoding an image; a row of zeros is a negative."""
    has_masks: bool
    """Whether every sample comes with a mask."""
    reads_masks: bool = True
    """Whether `self[i]` decodes the mask; the loader turns it off if nobody asks for masks."""
    skipped: tuple[str, ...] = ()
    """Names of images left out because they cannot be read."""

    @abstractmethod
    def __init__(self, config: DataConfig, split: str) -> None: ...

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Decode one sample; raises DataError (naming the file) if the image cannot be read."""
