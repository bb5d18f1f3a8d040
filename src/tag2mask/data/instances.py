"""A COCO instances file: tags at once, outlines only when a mask is asked for.

Of each annotation a few numbers are kept, among them where it stands in the file. Outlines, nearly
all of the file, are looked at for faults while it is read and are read again for each mask.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tag2mask.data.index import count
from tag2mask.data.json_stream import Element, JSONStream
from tag2mask.data.outline import paint_polygon, paint_runs, run_lengths
from tag2mask.data.tags import name_some
from tag2mask.errors import DataError
from tag2mask.types import BACKGROUND, Mask

T = TypeVar("T")
_LISTS = ("images", "annotations", "categories")
_NO_SHAPE = (math.nan,) * 4
_COLUMNS = "qqqqqbbdddd"
"""Kinds of what is kept of an annotation; see `_Found.rows`."""


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """Pictures with the classes and outlines of their objects, annotations in file order.

    Classes are ranked by their ids: COCO's ids 1 to 90 become ranks 0 to 79, mask values 1 to 80.

    Source: Specification 5.3.
    """

    path: Path
    file_names: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    """(N, 2) height and width."""
    class_names: tuple[str, ...]
    """By rank."""
    first: npt.NDArray[np.int64]
    """(N + 1,); the annotations of picture i are `first[i]` to `first[i + 1] - 1`."""
    ranks: npt.NDArray[np.int64]
    """(A,) class of each annotation."""
    crowds: npt.NDArray[np.bool_]
    """(A,) whether it outlines a crowd: a tag, but no pixels."""
    shaped: npt.NDArray[np.bool_]
    """(A,) whether it has an outline."""
    places: npt.NDArray[np.int64]
    """(A, 2) first byte in the file, and the one after the last."""

    @property
    def annotated(self) -> npt.NDArray[np.bool_]:
        """(N,) whether a picture has an annotation."""
        return np.diff(self.first) > 0

    @property
    def has_shapes(self) -> bool:
        """Whether all annotations but crowds have outlines, so that masks can be painted."""
        return bool((self.shaped | self.crowds).all())

    def tags(self, index: int) -> tuple[str, ...]:
        """Classes of a picture, crowds counted, by rank."""
        ranks = np.unique(self.ranks[self.first[index] : self.first[index + 1]])
        return tuple(self.class_names[rank] for rank in ranks)

    def mask(self, index: int) -> Mask:
        """Paint a picture's annotations in file order: later ones lie on top, crowds are left out.

        Raises:
            DataError: If the file is not what it was when it was opened.
        """
        height, width = self.sizes[index]
        mask = np.full((height, width), BACKGROUND, dtype=np.uint8)
        begin, end = self.first[index], self.first[index + 1]
        try:
            with self.path.open("rb") as file:
                for row in range(begin, end):
                    if not self.crowds[row]:
                        file.seek(self.places[row, 0])
                        text = file.read(self.places[row, 1] - self.places[row, 0])
                        _paint(mask, json.loads(text)["segmentation"], int(self.ranks[row]) + 1)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path}: changed while it was in use, or cannot be read ({error})"
            ) from error
        return mask


def read_instances(path: Path) -> Instances:
    """Read a COCO instances file; one that has been read before and is unchanged is at hand.

    Raises:
        DataError: If it is no such file, is cut off, or an annotation is faulty (how).
    """
    try:
        seen = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return _read_known(path, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=4)
def _read_known(path: Path, changed: int, size: int) -> Instances:
    """Read a file in the state that its time and size stand for."""
    found = _Found(path)
    with JSONStream(path) as stream:
        for name in stream.members():
            if name in _LISTS and stream.is_list():
                read = {"images": found.add_image, "categories": found.add_category}.get(
                    name, found.add_annotation
                )
                for element in stream.elements():
                    if not isinstance(element.value, dict):
                        raise DataError(
                            f"{path}: a member of '{name}' is no object (byte {element.start:,})"
                        )
                    read(element)
                found.seen.add(name)
            else:
                stream.value()
    return found.joined()


@dataclass(slots=True)
class _Found:
    """What has been read so far of a file whose lists may stand in any order."""

    path: Path
    seen: set[str] = field(default_factory=set)
    images: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """Id -> file name, height, width."""
    categories: dict[int, str] = field(default_factory=dict)
    rows: tuple[array[Any], ...] = field(
        default_factory=lambda: tuple(array(kind) for kind in _COLUMNS)
    )
    """By annotation: id, image id, category id, first and end byte, crowd, run lengths or not, and
    the least and greatest x and y (NaN without outline; 0, 0, width, height of run lengths)."""

    def add_image(self, element: Element) -> None:
        """Take one of `images`."""
        image = self._read_again(element)
        number, name = image.get("id"), image.get("file_name")
        size = (image.get("height"), image.get("width"))
        if not isinstance(number, int) or not isinstance(name, str) or not name:
            raise DataError(f"{self.path}: an image lacks id or file_name (byte {element.start:,})")
        height, width = size
        if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
            raise DataError(f"{self.path}: image {number} ({name}) lacks a height and width")
        if number in self.images:
            raise DataError(f"{self.path}: two images have the id {number}")
        self.images[number] = (name, height, width)

    def add_category(self, element: Element) -> None:
        """Take one of `categories`."""
        category = self._read_again(element)
        number, name = category.get("id"), category.get("name")
        if not isinstance(number, int) or not isinstance(name, str) or not name.strip():
            raise DataError(f"{self.path}: a category lacks id or name (byte {element.start:,})")
        if number in self.categories or name.strip() in self.categories.values():
            raise DataError(f"{self.path}: two categories have the id {number} or name '{name}'")
        self.categories[number] = name.strip()

    def add_annotation(self, element: Element) -> None:
        """Take one of `annotations`, its outline looked at and forgotten."""
        note = element.value
        number, image, category = (note.get(key) for key in ("id", "image_id", "category_id"))
        if not isinstance(image, int) or not isinstance(category, int):
            raise DataError(
                f"{self.path}: an annotation lacks image_id or category_id (byte {element.start:,})"
            )
        number = number if isinstance(number, int) else -1
        shape = note.get("segmentation")
        try:
            extent = _extent(shape) if shape else _NO_SHAPE
        except (ValueError, TypeError, KeyError) as error:
            reason = str(error) if type(error) is ValueError else "no polygons and no run lengths"
            raise DataError(f"{self.path}: {_label(number, image)}: {reason}") from error
        crowd, runs = bool(note.get("iscrowd", 0)), isinstance(shape, dict)
        row = (number, image, category, element.start, element.end, crowd, runs, *extent)
        for column, value in zip(self.rows, row, strict=True):
            column.append(value)

    def joined(self) -> Instances:
        """Bring the lists together.

        Raises:
            DataError: If one is missing, or annotations do not fit the images and categories.
        """
        missing = [name for name in _LISTS if name not in self.seen]
        if missing:
            raise DataError(
                f"{self.path}: has no list '{missing[0]}', so it is no COCO instances file"
            )
        if not self.images or not self.categories:
            raise DataError(f"{self.path}: lists no images, or no categories")
        numbers, images, categories, start, end, crowds, runs = (
            np.array(column) for column in self.rows[:7]
        )
        extents = np.stack([np.array(column) for column in self.rows[7:]], axis=1)
        owner = self._looked_up(images, list(self.images), "image", numbers)
        order = sorted(self.categories)
        ranks = self._looked_up(categories, order, "category", numbers)
        sizes = np.array([size for _, *size in self.images.values()], dtype=np.int64)
        self._reject_strays(extents, sizes[owner], runs.astype(bool), (numbers, images))
        by_image = np.argsort(owner, kind="stable")
        return Instances(
            path=self.path,
            file_names=tuple(name for name, *_ in self.images.values()),
            sizes=sizes,
            class_names=tuple(self.categories[number] for number in order),
            first=np.searchsorted(owner[by_image], np.arange(len(sizes) + 1)),
            ranks=ranks[by_image],
            crowds=crowds[by_image].astype(bool),
            shaped=~np.isnan(extents[by_image, 0]),
            places=np.stack([start, end], axis=1)[by_image],
        )

    def _read_again(self, element: Element) -> dict[str, Any]:
        """Read a short object from the file's bytes, so that names have all their letters."""
        if all(text.isascii() for text in element.value.values() if isinstance(text, str)):
            return dict(element.value)
        with self.path.open("rb") as file:
            file.seek(element.start)
            try:
                found: dict[str, Any] = json.loads(file.read(element.end - element.start))
            except UnicodeDecodeError as error:
                raise DataError(f"{self.path}: is not UTF-8 text ({error})") from error
        return found

    def _looked_up(
        self,
        wanted: npt.NDArray[np.int64],
        known: Sequence[int],
        thing: str,
        numbers: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        """Positions of annotations' ids among the known ones."""
        listed = np.array(known, dtype=np.int64)
        order = np.argsort(listed)
        at = np.searchsorted(listed, wanted, sorter=order).clip(max=len(listed) - 1)
        place: npt.NDArray[np.int64] = order[at]
        strange = np.flatnonzero(listed[place] != wanted)
        if strange.size:
            where = [f"annotation {numbers[row]} ({thing} {wanted[row]})" for row in strange]
            raise DataError(
                f"{self.path}: {count(len(strange), 'annotation')} of an unknown {thing}: "
                f"{name_some(where)}"
            )
        return place

    def _reject_strays(
        self,
        extents: npt.NDArray[np.float64],
        sizes: npt.NDArray[np.int64],
        runs: npt.NDArray[np.bool_],
        names: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    ) -> None:
        """Refuse outlines that are of another picture by what they cover."""
        height, width = sizes.T
        left, top, right, bottom = extents.T
        outside = (right < 0) | (bottom < 0) | (left > width) | (top > height)
        other = runs & ((right != width) | (bottom != height))
        strays = np.flatnonzero((outside & ~runs) | other)
        for row in strays[:1]:
            picture = f"{width[row]}x{height[row]} px"
            found = (
                f"its run lengths are of {right[row]:.0f}x{bottom[row]:.0f} px, "
                f"its image has {picture}"
                if runs[row]
                else f"lies outside its image of {picture} (x from {left[row]:g}, y from "
                f"{top[row]:g})"
            )
            more = f"; {len(strays) - 1:,} more are like it" if len(strays) > 1 else ""
            raise DataError(f"{self.path}: {_label(names[0][row], names[1][row])}: {found}{more}")


def _extent(shape: Mapping[str, Any] | Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Least x and y and greatest x and y of an outline; (0, 0, width, height) of run lengths.

    Raises:
        ValueError: If it is no outline, saying why.
    """
    if isinstance(shape, Mapping):
        height, width = shape["size"]
        total = int(run_lengths(shape["counts"]).sum())
        if total != height * width:
            raise ValueError(f"run lengths sum to {total:,}, its size {width}x{height} px does not")
        return (0.0, 0.0, width, height)
    for polygon in shape:
        if len(polygon) % 2:
            raise ValueError(f"a polygon is x, y, x, y, ...; one has {len(polygon)} numbers")
        if not polygon or not math.isfinite(sum(polygon)):
            raise ValueError("a polygon has no numbers, or an infinite one")
    return (
        min(min(polygon[::2]) for polygon in shape),
        min(min(polygon[1::2]) for polygon in shape),
        max(max(polygon[::2]) for polygon in shape),
        max(max(polygon[1::2]) for polygon in shape),
    )


def _paint(mask: Mask, shape: Mapping[str, Any] | Sequence[Sequence[float]], value: int) -> None:
    """Write `value` into the pixels of one annotation."""
    if isinstance(shape, Mapping):
        paint_runs(mask, run_lengths(shape["counts"]), value)
        return
    for polygon in shape:
        paint_polygon(mask, polygon, value)


def _label(number: int, image: int) -> str:
    """What messages call an annotation."""
    return (
        f"annotation {number} (image {image})" if number >= 0 else f"an annotation (image {image})"
    )
