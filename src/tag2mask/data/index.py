"""The index of a data set on disk: images, tags and masks by name, and all problems at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tag2mask.data.tags import image_key, name_some
from tag2mask.errors import DataError
from tag2mask.io.depth import ValueRange
from tag2mask.io.images import find_unreadable, list_images, read_image
from tag2mask.io.masks import read_mask, renumber
from tag2mask.types import Mask, Sample


@dataclass(frozen=True, slots=True)
class DatasetIndex:
    """A data set on disk, before classes and parts are selected."""

    where: str
    """Path that names the data set in messages."""
    images: Mapping[str, Path]
    """Name (path without suffix) -> image file."""
    tags: Mapping[str, tuple[str, ...]]
    """Name -> all its tags."""
    masks: Mapping[str, Path]
    """Name -> file that contains its mask, for images that have one."""
    mask_classes: tuple[str, ...] = ()
    """Classes of mask values 1, 2, ...; empty: the classes to learn, in their order."""
    problems: tuple[str, ...] = ()
    """One line per problem found."""
    warnings: tuple[str, ...] = ()
    """One line for each oddity that does not prevent using the data."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Name -> what images of one plot, patient or recording share; images without group stand
    alone."""
    merged: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Name -> further files with the same content whose tags it took over."""
    paint: Callable[[str], Mask] | None = None
    """Draws the mask of a name from annotations, values checked; None: masks are image files."""

    @property
    def tag_names(self) -> tuple[str, ...]:
        """Every tag in use, sorted."""
        return self.tags_of(self.tags)

    def tags_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return every tag of some images, sorted; names without a row have none."""
        return tuple(sorted({tag for name in names for tag in self.tags.get(name, ())}))

    def reject_problems(self) -> None:
        """Raise an error if there are problems.

        Raises:
            DataError: With one line per problem.
        """
        if self.problems:
            raise DataError(*self.problems)

    def readable(
        self, names: Iterable[str], *, strict: bool
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Split names into those with a readable image and the others.

        Args:
            names: Images to check.
            strict: Decode every image and reject unreadable ones. Otherwise only the beginning and
                the end of each file are checked; other damage is found when the image is read.

        Raises:
            DataError: If strict and an image is unreadable, or if no image is readable.
        """
        paths = {self.images[name]: name for name in names}
        unreadable = find_unreadable(paths, thorough=strict)
        readable = tuple(name for path, name in paths.items() if path not in unreadable)
        if unreadable and (strict or not readable):
            reasons = name_some([f"{path} ({reason})" for path, reason in unreadable.items()])
            raise DataError(
                f"{self.where}: {count(len(unreadable), 'unreadable image')}: {reasons}; remove "
                "or replace the files"
            )
        return readable, tuple(paths[path] for path in unreadable)

    def has_masks(self, names: Iterable[str]) -> bool:
        """Return whether every name has a mask."""
        return all(name in self.masks for name in names)

    def masked(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the positions of the names that have a mask."""
        return tuple(index for index, name in enumerate(names) if name in self.masks)

    def sample(
        self,
        name: str,
        tags: npt.NDArray[np.uint8],
        classes: Sequence[str],
        *,
        with_mask: bool,
        value_range: ValueRange | None = None,
    ) -> Sample:
        """Decode one image, and its mask renumbered to `classes` (other classes become ignore).

        Raises:
            DataError: Naming the image or mask that cannot be read or used.
        """
        image = read_image(self.images[name], value_range)
        if not with_mask:
            return Sample(name, image, tags)
        mask_classes = self.mask_classes or classes
        height, width = image.shape[:2]
        mask = self.read_mask(name, len(mask_classes), (height, width))
        return Sample(name, image, tags, renumber(mask_classes, classes)[mask])

    def read_mask(self, name: str, num_foreground: int, size: tuple[int, int] | None) -> Mask:
        """Read or draw the mask of an image, without renumbering.

        Args:
            name: Of an image that has a mask.
            num_foreground: Largest class value.
            size: (H, W) of the image; None skips the check of the size.

        Raises:
            DataError: Naming the mask that cannot be read or has a different size than its image.
        """
        if self.paint is None:
            return read_mask(self.masks[name], num_foreground, size)
        mask = self.paint(name)
        if size is not None and mask.shape != size:
            raise DataError(
                f"{self.images[name]}: the image has {size[1]}x{size[0]} px, but "
                f"{self.masks[name]} says {mask.shape[1]}x{mask.shape[0]} px"
            )
        return mask


def merge_indexes(root: Path, parts: Mapping[str, DatasetIndex]) -> DatasetIndex:
    """Merge the indexes of several parts; names get the prefix `PART/`."""
    sources = {
        f"{part}/{name}": (index, name) for part, index in parts.items() for name in index.images
    }
    first, *others = parts.values()
    classes = first.mask_classes
    problems = [line for index in parts.values() for line in index.problems]
    problems += [
        f"{index.where}: the classes differ from those of {first.where}; use the same classes in "
        "the same order"
        for index in others
        if index.mask_classes != classes
    ]

    def paint(name: str) -> Mask:
        index, inner = sources[name]
        return index.read_mask(inner, len(classes), None)

    return DatasetIndex(
        where=str(root),
        images={name: index.images[inner] for name, (index, inner) in sources.items()},
        tags={name: index.tags[inner] for name, (index, inner) in sources.items()},
        masks={
            name: index.masks[inner]
            for name, (index, inner) in sources.items()
            if inner in index.masks
        },
        mask_classes=classes,
        problems=tuple(problems),
        warnings=tuple(line for index in parts.values() for line in index.warnings),
        groups={
            name: index.groups[inner]
            for name, (index, inner) in sources.items()
            if inner in index.groups
        },
        paint=paint,
    )


def name_images(folder: Path, leave_out: Path | None = None) -> tuple[dict[str, Path], list[str]]:
    """Find the images below `folder` and name them.

    Args:
        folder: Searched with its subfolders.
        leave_out: Subfolder to skip, because it contains masks.

    Returns:
        Name -> file in sorted order, and a list with one line if several images share a name.
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
            "images whose names differ only in the suffix would share one mask: "
            f"{name_some(clashes)}; rename one of each"
        )
    return named, problems


def file_name(path: Path, folder: Path) -> str:
    """Return the name of an image or mask: its path below `folder` without suffix."""
    return image_key(path.relative_to(folder).with_suffix("").as_posix())


def find_masks(folder: Path) -> dict[str, Path]:
    """Return name -> mask file for every PNG below `folder`; empty without that folder."""
    return {
        file_name(path, folder): path
        for path in sorted(folder.rglob("*.png"))
        if not path.name.startswith(".")
    }


def count(number: int, thing: str) -> str:
    """Return a number with its noun: `1 image`, `2 images`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
