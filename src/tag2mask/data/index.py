"""What lies on the disk: images, their tags and masks under one name, and every fault at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tag2mask.data.tags import image_key, name_some
from tag2mask.errors import DataError
from tag2mask.io.images import find_unreadable, list_images, read_image
from tag2mask.io.masks import read_mask, renumber
from tag2mask.types import Mask, Sample


@dataclass(frozen=True, slots=True)
class DatasetIndex:
    """A data set as found, before classes or parts are chosen."""

    where: str
    """What messages call the data set."""
    images: Mapping[str, Path]
    """Name (path without suffix) -> image file."""
    tags: Mapping[str, tuple[str, ...]]
    """Name -> all its tags."""
    masks: Mapping[str, Path]
    """Name -> file that its mask stands in, for images that have one."""
    mask_classes: tuple[str, ...] = ()
    """Classes of mask values 1, 2, ...; empty: the classes that are learned, in their order."""
    problems: tuple[str, ...] = ()
    """One line for each contradiction found."""
    warnings: tuple[str, ...] = ()
    """One line for each oddity that does not prevent using the data."""
    paint: Callable[[str], Mask] | None = None
    """Makes the mask of a name, values checked, where masks are no pictures; none: they are."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Every tag in use, sorted."""
        return tuple(sorted({tag for tags in self.tags.values() for tag in tags}))

    def reject_problems(self) -> None:
        """Raise DataError with one line per fault, if there is any."""
        if self.problems:
            raise DataError("\n".join(self.problems))

    def readable(
        self, names: Iterable[str], *, strict: bool
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Part names into those with a readable image and the others.

        Args:
            names: What to look at.
            strict: Decode every image and refuse any that fails. Otherwise only headers and ends of
                files are looked at; a fault in the middle shows when the image is read.

        Raises:
            DataError: If strict and an image is unreadable, or if none is readable.
        """
        paths = {self.images[name]: name for name in names}
        broken = find_unreadable(paths, thorough=strict)
        kept = tuple(name for path, name in paths.items() if path not in broken)
        if broken and (strict or not kept):
            reasons = name_some([f"{path} ({why})" for path, why in broken.items()])
            raise DataError(f"{self.where}: {count(len(broken), 'unreadable image')}: {reasons}")
        return kept, tuple(paths[path] for path in broken)

    def has_masks(self, names: Iterable[str]) -> bool:
        """Whether each of the names has a mask file."""
        return all(name in self.masks for name in names)

    def sample(
        self, name: str, tags: npt.NDArray[np.uint8], classes: Sequence[str], *, with_mask: bool
    ) -> Sample:
        """Decode one image, and its mask renumbered to `classes` (others become ignore).

        Raises:
            DataError: Naming the image or mask that cannot be read or used.
        """
        image = read_image(self.images[name])
        if not with_mask:
            return Sample(name, image, tags)
        known = self.mask_classes or classes
        height, width = image.shape[:2]
        mask = self.read_mask(name, len(known), (height, width))
        return Sample(name, image, tags, renumber(known, classes)[mask])

    def read_mask(self, name: str, num_foreground: int, size: tuple[int, int] | None) -> Mask:
        """Read or paint the mask of a name, as it is.

        Args:
            name: Of an image that has one.
            num_foreground: Greatest value of a class.
            size: (H, W) of the image; None leaves the size unchecked.

        Raises:
            DataError: Naming the mask that cannot be read, or has another size.
        """
        if self.paint is None:
            return read_mask(self.masks[name], num_foreground, size)
        mask = self.paint(name)
        if size is not None and mask.shape != size:
            raise DataError(
                f"{self.images[name]}: the image is {size[1]}x{size[0]} px, but "
                f"{mask.shape[1]}x{mask.shape[0]} px by {self.masks[name]}"
            )
        return mask


def merge_indexes(root: Path, parts: Mapping[str, DatasetIndex]) -> DatasetIndex:
    """Join the surveys of parts into one whose names begin with the part's."""
    names = {f"{part}/{name}": (own, name) for part, own in parts.items() for name in own.images}
    first, *others = parts.values()
    classes = first.mask_classes
    problems = [line for own in parts.values() for line in own.problems]
    problems += [
        f"{own.where}: has other classes than {first.where}"
        for own in others
        if own.mask_classes != classes
    ]

    def paint(name: str) -> Mask:
        own, inner = names[name]
        return own.read_mask(inner, len(classes), None)

    return DatasetIndex(
        where=str(root),
        images={name: own.images[inner] for name, (own, inner) in names.items()},
        tags={name: own.tags[inner] for name, (own, inner) in names.items()},
        masks={n: own.masks[inner] for n, (own, inner) in names.items() if inner in own.masks},
        mask_classes=classes,
        problems=tuple(problems),
        warnings=tuple(line for own in parts.values() for line in own.warnings),
        paint=paint,
    )


def name_images(folder: Path, leave_out: Path | None = None) -> tuple[dict[str, Path], list[str]]:
    """Find the images below `folder` and give each its name.

    Args:
        folder: Where images are.
        leave_out: A folder whose images are no images (masks).

    Returns:
        Name -> file in sorted order, and a fault line for images that would share a name.
    """
    named: dict[str, Path] = {}
    clashes = []
    for path in list_images(folder):
        if leave_out is not None and path.is_relative_to(leave_out):
            continue
        name = file_name(path, folder)
        if name in named:
            clashes.append(f"{named[name]} and {path.name}")
        else:
            named[name] = path
    problems = []
    if clashes:
        problems.append(
            f"images that differ in suffix only share a mask name: {name_some(clashes)}"
        )
    return named, problems


def file_name(path: Path, folder: Path) -> str:
    """Return a sample's name: the path below `folder` without suffix."""
    return image_key(path.relative_to(folder).with_suffix("").as_posix())


def find_masks(folder: Path) -> dict[str, Path]:
    """Return name -> mask file for every PNG below `folder`; empty if there is no such folder."""
    return {
        file_name(path, folder): path
        for path in sorted(folder.rglob("*.png"))
        if not path.name.startswith(".")
    }


def count(number: int, thing: str) -> str:
    """Return `1 image`, `2 images`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
