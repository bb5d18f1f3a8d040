"""What a user may pass to a `Segmenter`: images in many forms, folders of them, and tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.errors import DataError, did_you_mean
from tag2mask.io.arrays import rgb_from_array
from tag2mask.io.depth import ValueRange
from tag2mask.io.image_inputs import input_images
from tag2mask.io.images import read_image, rgb_from_pil
from tag2mask.types import Image

ImageLike = npt.NDArray[Any] | PILImage.Image | str | Path
"""An array (see `rgb_from_array`), a Pillow image, or the path of a file."""
ImageList = list[Any] | tuple[ImageLike, ...]
"""Several images; type checkers do not accept a list of paths as a list of `ImageLike`."""
Tags = str | Sequence[str]
"""Tags of one image; a string is one tag."""


class NamedImage(NamedTuple):
    """A decoded image and its name."""

    name: str
    image: Image


def is_folder(image: object) -> TypeGuard[str | Path]:
    """Return whether an argument is the path of a folder."""
    return isinstance(image, str | Path) and Path(image).is_dir()


def decode_image(image: ImageLike, value_range: ValueRange | None = None) -> NamedImage:
    """Decode what a user passed as an image; see `read_image`.

    Raises:
        DataError: If it is no image.
    """
    if isinstance(image, str) and "://" in image:
        raise DataError(f"{image}: is a web address; download the image and give its path")
    if isinstance(image, str | Path):
        return NamedImage(Path(image).stem, read_image(Path(image), value_range))
    if isinstance(image, PILImage.Image):
        return NamedImage(_stem(image), rgb_from_pil(image, value_range))
    if isinstance(image, np.ndarray):
        return NamedImage("", rgb_from_array(image, value_range))
    raise DataError(
        f"a {type(image).__name__} is no image; give a path, a Pillow image or a NumPy array, or a "
        "list of these"
    )


def folder_images(folder: Path, value_range: ValueRange | None = None) -> Iterator[NamedImage]:
    """Decode the images of a folder one at a time, in the order of their paths; see `read_image`.

    Raises:
        DataError: If there is no image, the folder contains masks, or an image cannot be read.
    """
    return _decode_all(folder, input_images(folder), value_range)


def tag_names(tags: Iterable[object]) -> tuple[str, ...]:
    """Return the tags of one image; a string is one tag.

    Raises:
        DataError: If a tag is no text.
    """
    names = []
    for name in (tags,) if isinstance(tags, str) else tags:
        if not isinstance(name, str):
            raise DataError(f"a tag is text, got {name!r} of type {type(name).__name__}")
        names.append(name)
    return tuple(names)


def tags_of_list(tags: Tags | Sequence[Tags], count: int) -> list[Tags]:
    """Return the tags of each image of a list.

    Args:
        tags: One entry per image; a string is the one tag of every image.
        count: Number of images.

    Raises:
        DataError: If there are more or fewer entries than images.
    """
    if isinstance(tags, str):
        return [tags] * count
    if len(tags) != count:
        raise DataError(
            f"{count} images, but tags of {len(tags)}; give one entry per image, such as "
            "[['cat'], ['cat', 'dog'], []]"
        )
    return list(tags)


def tag_row(tags: Iterable[str], class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the (F,) row of tags in {0, 1}.

    Raises:
        DataError: If a tag is not one of the class names.
    """
    row = np.zeros(len(class_names), dtype=np.uint8)
    for tag in tags:
        if tag not in class_names:
            hint = did_you_mean(tag, class_names)
            known = ", ".join(class_names)
            raise DataError(f"unknown tag '{tag}'.{hint} This model knows: {known}")
        row[list(class_names).index(tag)] = 1
    return row


def _decode_all(
    folder: Path, paths: Sequence[Path], value_range: ValueRange | None
) -> Iterator[NamedImage]:
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield NamedImage(name, read_image(path, value_range))


def _stem(image: PILImage.Image) -> str:
    """Return the name of the file that Pillow opened; empty for another image."""
    name = getattr(image, "filename", "")
    return Path(name).stem if isinstance(name, str) else ""
