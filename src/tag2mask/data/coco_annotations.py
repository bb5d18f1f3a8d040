"""Read a COCO annotation file: tags at once, masks decoded on request.

The file is parsed once. Outlines are kept in compact arrays, everything else of the JSON is freed
before this module returns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from tag2mask.data.coco_outlines import LONGEST, OutlinePacker, Outlines, pack_polygons
from tag2mask.data.index import count
from tag2mask.data.tags import name_some, unprintable
from tag2mask.errors import DataError
from tag2mask.io.json_files import unique_keys
from tag2mask.io.text_files import open_regular
from tag2mask.types import BACKGROUND, Mask

_LISTS = ("images", "annotations", "categories")
_KEPT = ("id", "image_id", "category_id", "iscrowd")
_LARGEST_ID = 2**63 - 1
_LONGEST_SIDE = 2**20
_MOST_PIXELS = 2**28
"""Pillow refuses to open images of this size."""


@dataclass(frozen=True, slots=True, eq=False)
class COCOAnnotations:
    """Images with the classes and outlines of their objects.

    Classes are ranked by their ids: COCO's ids 1 to 90 become ranks 0 to 79, mask values 1 to 80.

    Source: Specification 5.3.
    """

    path: Path
    file_names: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    """(N, 2) height and width."""
    class_names: tuple[str, ...]
    """By rank."""
    order: npt.NDArray[np.int64]
    """(A,) annotations grouped by image, in file order within an image."""
    first: npt.NDArray[np.int64]
    """(N + 1,); image i has the annotations `order[first[i]:first[i + 1]]`."""
    ranks: npt.NDArray[np.int64]
    """(A,) class of each annotation, in file order."""
    crowds: npt.NDArray[np.bool_]
    """(A,) whether it outlines a crowd: a tag, but no pixels."""
    outlines: Outlines
    warnings: tuple[str, ...]
    """One line for each kind of annotation that is odd, but usable."""

    @property
    def annotated(self) -> npt.NDArray[np.bool_]:
        """(N,) whether an image has an annotation."""
        return np.diff(self.first) > 0

    @property
    def has_shapes(self) -> bool:
        """Whether all annotations but crowds have outlines, so that masks can be decoded."""
        return bool((self.outlines.has_outline | self.crowds).all())

    def tags(self, index: int) -> tuple[str, ...]:
        """Return the classes of an image, crowds included, by rank."""
        ranks = np.unique(self.ranks[self._of(index)])
        return tuple(self.class_names[rank] for rank in ranks)

    def mask(self, index: int) -> Mask:
        """Decode the annotations of an image: later ones lie on top, crowds are left out."""
        height, width = (int(side) for side in self.sizes[index])
        mask = np.full((height, width), BACKGROUND, dtype=np.uint8, order="F")
        for row in self._of(index):
            inside = None if self.crowds[row] else self.outlines.decode(int(row), (height, width))
            if inside is not None:
                mask[inside] = self.ranks[row] + 1
        return np.ascontiguousarray(mask)

    def _of(self, index: int) -> npt.NDArray[np.int64]:
        """Return the annotations of an image."""
        return self.order[self.first[index] : self.first[index + 1]]


def read_annotations(path: Path, *, with_crowds: bool = False) -> COCOAnnotations:
    """Read a COCO annotation file; an unchanged file is read once per process.

    Args:
        path: The file.
        with_crowds: Draw crowds like other objects.

    Raises:
        DataError: If the file is not a COCO annotation file, is cut off, or an annotation is
            faulty (which one, and how).
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return _read_known(path, state.st_mtime_ns, state.st_size, with_crowds)


@lru_cache(maxsize=4)
def _read_known(path: Path, changed: int, size: int, with_crowds: bool) -> COCOAnnotations:
    """Read a file in the state that its time and size stand for."""
    lists = _parse(path)
    images = _read_images(path, lists["images"])
    categories = _read_categories(path, lists["categories"])
    if not images or not categories:
        raise DataError(f"{path}: lists no images, or no categories")
    sizes = np.array([(height, width) for _, height, width in images.values()], dtype=np.int64)
    notes = lists["annotations"]
    owner, ranks = _positions_of(path, notes, list(images), sorted(categories))
    crowds = _read_crowds(path, notes) & (not with_crowds)
    outlines = _read_outlines(path, notes, sizes[owner], crowds)
    order = np.argsort(owner, kind="stable")
    return COCOAnnotations(
        path=path,
        file_names=tuple(name for name, *_ in images.values()),
        sizes=sizes,
        class_names=tuple(categories[number] for number in sorted(categories)),
        order=order,
        first=np.searchsorted(owner[order], np.arange(len(sizes) + 1)),
        ranks=ranks,
        crowds=crowds,
        outlines=outlines,
        warnings=_warn_strays(path, notes, outlines, sizes[owner]),
    )


def _parse(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Parse the JSON and return its three lists of objects."""
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
            found = json.load(file, object_pairs_hook=_shrink)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error})") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: is cut off or not valid JSON ({error.msg}, character {error.pos:,} of "
            f"{len(error.doc):,})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: is not a JSON object, so it is not a COCO annotation file")
    for name in _LISTS:
        members = found.get(name)
        if not isinstance(members, list):
            raise DataError(f"{path}: has no list '{name}', so it is not a COCO annotation file")
        for position, member in enumerate(members):
            if not isinstance(member, dict):
                raise DataError(f"{path}: {name}[{position}] is not an object")
    return {name: found[name] for name in _LISTS}


def _shrink(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keep what is needed of an annotation, as soon as it is parsed; return other objects as is.

    Raises:
        ValueError: If a key occurs twice, which would lose one of the values.
    """
    found = unique_keys(pairs)
    if not found.keys() >= {"image_id", "segmentation"}:
        return found
    kept = {key: found[key] for key in _KEPT if key in found}
    kept["segmentation"] = pack_polygons(found["segmentation"])
    return kept


def _read_images(
    path: Path, members: Sequence[Mapping[str, Any]]
) -> dict[int, tuple[str, int, int]]:
    """Return id -> file name, height, width."""
    images: dict[int, tuple[str, int, int]] = {}
    for position, image in enumerate(members):
        number, name = image.get("id"), image.get("file_name")
        if not _is_id(number) or not isinstance(name, str) or not name:
            raise DataError(
                f"{path}: images[{position}] needs a 64-bit whole number as id, and a file_name"
            )
        height, width = image.get("height"), image.get("width")
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise DataError(f"{path}: image {number} ({name}) lacks a height and width")
        if max(height, width) > _LONGEST_SIDE or height * width > _MOST_PIXELS:
            raise DataError(
                f"{path}: image {number} ({name}) cannot be {_brief(width)}x{_brief(height)} px"
            )
        if number in images:
            raise DataError(f"{path}: two images have the id {number}")
        images[number] = (name, height, width)
    return images


def _read_categories(path: Path, members: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return id -> name."""
    categories: dict[int, str] = {}
    names: set[str] = set()
    for position, category in enumerate(members):
        number, name = category.get("id"), category.get("name")
        if not _is_id(number) or not isinstance(name, str) or not name.strip():
            raise DataError(
                f"{path}: categories[{position}] needs a 64-bit whole number as id, and a name"
            )
        if odd := unprintable([name]):
            raise DataError(f"{path}: category {odd}")
        if number in categories or name.strip() in names:
            raise DataError(f"{path}: two categories have the id {number} or name '{name}'")
        categories[number] = name.strip()
        names.add(name.strip())
    return categories


def _positions_of(
    path: Path,
    notes: Sequence[Mapping[str, Any]],
    images: Sequence[int],
    categories: Sequence[int],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions of each annotation's image and category."""
    found = []
    for thing, known in (("image", images), ("category", categories)):
        positions = {number: position for position, number in enumerate(known)}
        key = f"{thing}_id"
        for position, note in enumerate(notes):
            if not _is_id(note.get(key)):
                raise DataError(
                    f"{path}: {_label(note, position)}: {key} must be a 64-bit whole number, not "
                    f"{_brief(note.get(key))}"
                )
        strange = [
            f"{_label(note, position, image=False)} ({thing} {note[key]})"
            for position, note in enumerate(notes)
            if note[key] not in positions
        ]
        if strange:
            raise DataError(
                f"{path}: {count(len(strange), 'annotation')} of an unknown {thing}: "
                f"{name_some(strange)}"
            )
        found.append(np.array([positions[note[key]] for note in notes], dtype=np.int64))
    return found[0], found[1]


def _read_crowds(path: Path, notes: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.bool_]:
    """Return whether each annotation outlines a crowd."""
    for position, note in enumerate(notes):
        if note.get("iscrowd") not in (0, 1, None):
            raise DataError(
                f"{path}: {_label(note, position)}: iscrowd must be 0 or 1, not "
                f"{_brief(note['iscrowd'])}"
            )
    return np.array([bool(note.get("iscrowd")) for note in notes], dtype=np.bool_)


def _read_outlines(
    path: Path,
    notes: Sequence[dict[str, Any]],
    sizes: npt.NDArray[np.int64],
    crowds: npt.NDArray[np.bool_],
) -> Outlines:
    """Pack and check the outlines of all annotations, and take them out of the annotations.

    Args:
        path: For messages.
        notes: The annotations.
        sizes: (A, 2) height and width of their images.
        crowds: (A,) whether they outline crowds.

    Raises:
        DataError: Naming the first faulty annotation.
    """
    packer = OutlinePacker()
    for position, (note, size, crowd) in enumerate(
        zip(notes, sizes.tolist(), crowds.tolist(), strict=True)
    ):
        try:
            packer.add(note.pop("segmentation", None), tuple(size), keep=not crowd)
        except ValueError as error:
            raise DataError(f"{path}: {_label(note, position)}: {error}") from error
    outlines = packer.packed()
    part = outlines.find_too_long()
    if part is not None:
        position = int(np.searchsorted(outlines.parts, part, side="right")) - 1
        raise DataError(
            f"{path}: {_label(notes[position], position)}: a polygon is longer than {LONGEST:,} px"
        )
    return outlines


def _warn_strays(
    path: Path,
    notes: Sequence[Mapping[str, Any]],
    outlines: Outlines,
    sizes: npt.NDArray[np.int64],
) -> tuple[str, ...]:
    """Warn of annotations whose polygons all lie outside their image: tags without pixels."""
    per_note = np.diff(outlines.parts)
    owner = np.repeat(np.arange(len(notes)), per_note)
    height, width = sizes[owner].T
    left, top, right, bottom = outlines.extents().T
    outside = (right < 0) | (bottom < 0) | (left > width) | (top > height)
    out = np.bincount(owner[outside], minlength=len(notes))
    strays = np.flatnonzero((out > 0) & (out == per_note))
    if not strays.size:
        return ()
    where = [_label(notes[position], position) for position in strays.tolist()]
    return (
        f"{path}: {count(len(where), 'outline')} outside the image, so a tag without pixels: "
        f"{name_some(where)}",
    )


def _is_id(number: Any) -> TypeGuard[int]:
    """Whether a value is a whole number that fits into 64 bits."""
    return type(number) is int and -_LARGEST_ID <= number <= _LARGEST_ID


def _label(note: Mapping[str, Any], position: int, *, image: bool = True) -> str:
    """Return what messages call an annotation."""
    number = note.get("id")
    name = f"annotation {number}" if _is_id(number) else f"annotations[{position}]"
    return f"{name} (image {_brief(note.get('image_id'))})" if image else name


def _brief(value: Any) -> str:
    """Return a value of a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}..."
