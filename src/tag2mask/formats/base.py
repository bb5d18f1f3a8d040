"""The contract of formats, and the masks that they write and read."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.io.geo import Georeference, georeference
from tag2mask.types import ClassSource, Mask

if TYPE_CHECKING:  # torch, which masks do not need
    from tag2mask.inference.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """One image and its mask, which is read from disk only when a format asks for it."""

    name: str
    """Path without suffix, unique: `lane1/cow`."""
    file_name: str
    """Path with suffix, relative to the folder of the images: `lane1/cow.jpg`."""
    width: int
    height: int
    load: Callable[[], Mask] = field(repr=False)
    """Returns the (H, W) uint8 mask."""
    image_path: Path | None = None
    """The image file; None if it is not at hand."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Class probability of each class; empty if none were recorded."""
    uncertainty: float | None = None
    """In [0, 1], large where the mask is probably wrong; None if it was not computed."""

    def image_file(self, format_name: str) -> Path:
        """Return the image file, for formats that copy or read it.

        Raises:
            DataError: If the image is not at hand.
        """
        if self.image_path is None:
            raise DataError(
                f"{self.file_name}: the image is missing, and format {format_name} needs it; give "
                "the folder of the images: --images DIR"
            )
        return self.image_path

    def georeference(self) -> Georeference | None:
        """Where the image lies on the map; None if the file is missing or says nothing."""
        return None if self.image_path is None else georeference(self.image_path)

    def copy_image(self, target: Path, format_name: str) -> None:
        """Copy the image file; folders of the target are made.

        Raises:
            DataError: If the image is not at hand.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.image_file(format_name), target)

    def save_gray_mask(self, target: Path) -> None:
        """Write the mask as gray PNG, where readers would turn a palette into colors."""
        target.parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(self.load()).save(target)


@dataclass(frozen=True, slots=True)
class MaskCollection:
    """The masks that a format writes."""

    class_names: tuple[str, ...]
    """Foreground names in the order of mask values 1..F; 0 is background, 255 is ignore."""
    palette: tuple[tuple[int, int, int], ...]
    """RGB of mask values 0..F."""
    images: tuple[MaskedImage, ...]
    """Sorted by name."""
    class_source: ClassSource | None = None
    """Where the classes of the masks come from."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How the masks were made: run, scales, refiner, threshold."""

    @property
    def unlabeled(self) -> str:
        """What pixels without a class are: background, or pixels that were not decided."""
        has_background = self.settings.get("has_background", True)
        return "background" if has_background else "undecided, because there is no background"

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[MaskedImage]:
        return iter(self.images)

    def flattened(self) -> MaskCollection:
        """Return the same images without the folders of their names, for tools that want none.

        Raises:
            DataError: If two images would share a name.
        """
        flat = tuple(
            replace(image, name=Path(image.name).name, file_name=Path(image.file_name).name)
            for image in self.images
        )
        owners: dict[str, str] = {}
        for image, renamed in zip(self.images, flat, strict=True):
            other = owners.setdefault(renamed.name, image.file_name)
            if other != image.file_name:
                raise DataError(
                    f"{other} and {image.file_name} would share the name {renamed.name} without "
                    "their folders; export them with their folders, or rename one"
                )
        return replace(self, images=flat)

    def most_uncertain(self, count: int) -> MaskCollection:
        """Return the `count` images of highest uncertainty, the most uncertain first.

        Raises:
            DataError: If no uncertainty was recorded with the masks.
        """
        missing = [image.name for image in self.images if image.uncertainty is None]
        if missing:
            raise DataError(
                f"scores.jsonl beside the masks has no uncertainty of {missing[0]} (one of "
                f"{len(missing)}); write the masks again with 'label' or 'predict'"
            )
        ranked = sorted(self.images, key=lambda image: -(image.uncertainty or 0.0))
        return replace(self, images=tuple(ranked[:count]))


class NamedMask(NamedTuple):
    """A mask that a format read."""

    name: str
    """Path of the image without suffix."""
    mask: Mask


@dataclass(frozen=True, slots=True)
class ReadMasks:
    """The masks that a format reads."""

    class_names: tuple[str, ...]
    """Foreground names in the order of mask values 1..F."""
    masks: Iterator[NamedMask]
    """One at a time, each name once; raises DataError at a mask that cannot be read."""


class Format(ABC):
    """A format of a labeling tool or data set.

    To add a format, write one file in `formats` with one direct subclass; the first line of the
    file's docstring describes it in `tag2mask list formats`. Implement `write`, and `read` if the
    tool gives corrected masks back.
    """

    suffix: ClassVar[str] = ""
    """Suffix of the file that `write` writes; empty: it writes a folder."""

    @abstractmethod
    def write(self, masks: MaskCollection, out: Path) -> None:
        """Write all masks to a path that does not exist.

        The caller passes a temporary path and renames it, so `out` may be left half-written when an
        error is raised, and what is written must not contain its path.

        Args:
            masks: At least one image.
            out: File (`suffix`) or folder to create; its parent exists.

        Raises:
            DataError: If a mask or image cannot be read or the format cannot express a name.
        """

    def read(self, path: Path, images: Path | None = None) -> ReadMasks:
        """Read masks that a person corrected in the tool.

        Args:
            path: File or folder as the tool exports it.
            images: Folder of the images, for formats that do not record their sizes.

        Raises:
            DataError: If it cannot be read, or the format has no way back.
        """
        raise DataError(
            f"{path}: this format cannot be imported; 'tag2mask list formats' shows all"
        )


class ModelFormat(ABC):
    """A format of model files that run without tag2mask.

    To add one, write one file in `formats/models` with one direct subclass; the first line of the
    file's docstring describes it in `tag2mask list formats`.
    """

    suffix: ClassVar[str]
    """Suffix of the file."""

    @abstractmethod
    def write(self, segmenter: Segmenter, out: Path) -> None:
        """Write the network of a run, with everything from decoded image to mask.

        Args:
            segmenter: The run, with the test-time settings that the model gets.
            out: A file that does not exist; the caller renames it.

        Raises:
            RunError: If a setting of the run cannot be part of a model file.
            MissingExtraError: If a package is not installed.
        """
