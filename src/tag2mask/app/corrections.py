"""The folder of corrected masks: what training reads as true masks.

A mask appears completely or not at all. One that this page did not write is replaced only if the
person agreed, and stays beside the new one as a hidden file that no reader takes for a mask.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tag2mask.app.refusals import MaskExistsError, RefusedError
from tag2mask.data.index import find_masks
from tag2mask.errors import RunError
from tag2mask.io.mask_folder import (
    CLASSES_FILE,
    describe_classes,
    read_classes,
    write_classes,
)
from tag2mask.io.masks import read_mask, renumber, save_mask
from tag2mask.types import Mask


class SavedMask(NamedTuple):
    """A mask in the folder."""

    mask: Mask
    """(H, W), values of the page's classes."""
    version: str
    """Changes with the file."""
    is_own: bool
    """Whether this page wrote it."""


class CorrectedMasks:
    """Saves and reads corrected masks; its methods may be called from any thread."""

    def __init__(self, folder: Path, class_names: Sequence[str], origin: str) -> None:
        """Open a folder.

        Args:
            folder: Created with the first mask.
            class_names: Classes of the page, in the order of mask values 1..F.
            origin: The run, recorded in a new `classes.json`.

        Raises:
            DataError: If the folder has a damaged `classes.json`.
            RunError: If it has masks, but no `classes.json` that names their classes.
        """
        self.folder = folder
        self._class_names = tuple(class_names)
        self._origin = origin
        self._written: set[tuple[Path, str]] = set()
        self._lock = threading.Lock()
        if (folder / CLASSES_FILE).is_file():
            read_classes(folder)
        elif find_masks(folder):
            raise RunError(
                f"{folder}: contains masks, but no {CLASSES_FILE} that names the class of each "
                f'value; add one, such as {{"classes": ["{self._class_names[0]}"]}}, or save '
                "elsewhere: --save DIR"
            )

    def has(self, name: str) -> bool:
        """Whether an image has a mask in the folder."""
        return self._path(name).is_file()

    def read(self, name: str, size: tuple[int, int]) -> SavedMask | None:
        """Read the mask of an image; None without.

        Args:
            name: Of the image.
            size: (H, W) of the image.

        Raises:
            DataError: If the mask is damaged or has another size.
        """
        path = self._path(name)
        if not path.is_file():
            return None
        known = tuple(read_classes(self.folder)["classes"])
        mask = read_mask(path, len(known), size)
        version = _version(path)
        is_own = (path, version) in self._written
        return SavedMask(renumber(known, self._class_names)[mask], version, is_own)

    def save(self, name: str, mask: Mask, replaces: str | None, *, confirmed: bool) -> str:
        """Save the mask of an image.

        Args:
            name: Of the image.
            mask: (H, W), values of the page's classes.
            replaces: Version that the person saw; None: there was no mask.
            confirmed: Whether the person agreed to replace a mask that this page did not write.

        Returns:
            The new version.

        Raises:
            MaskExistsError: If another mask is there than the person saw, or agreement is
                missing.
            RunError: If the disk refuses.
        """
        path = self._path(name)
        with self._lock:
            try:
                return self._replace(path, mask, replaces, confirmed)
            except OSError as error:
                raise RunError(
                    f"{path}: cannot be saved ({error.strerror or error}); what was there is "
                    "intact. Free space or allow writing, and save again"
                ) from error

    def _replace(self, path: Path, mask: Mask, replaces: str | None, confirmed: bool) -> str:
        found = _version(path) if path.is_file() else None
        is_own = found is not None and (path, found) in self._written
        if found is not None and not is_own and not confirmed:
            raise MaskExistsError(
                f"{path.name}: there is already a mask that was not made on this page. Replace it? "
                "The old one is kept beside it as a hidden file."
            )
        if found is not None and found != replaces and not confirmed:
            raise MaskExistsError(
                f"{path.name}: somebody else saved a mask of this image after you opened it. "
                "Replace it? The old one is kept beside it as a hidden file."
            )
        table = renumber(self._class_names, self._complete_classes())
        path.parent.mkdir(parents=True, exist_ok=True)
        if found is not None and not (is_own and found == replaces):
            _keep(path)
        save_mask(table[mask], path)
        version = _version(path)
        self._written.add((path, version))
        return version

    def _complete_classes(self) -> list[str]:
        """Return the classes of the folder; classes of the page that it lacks are added."""
        found = (self.folder / CLASSES_FILE).is_file()
        described = read_classes(self.folder) if found else {"classes": []}
        known: list[str] = described["classes"]
        merged = [*known, *(name for name in self._class_names if name not in known)]
        if merged != known:
            source = described.get("class_source", "corrected")
            settings = described.get("settings", {"corrected_on_page_of": self._origin})
            write_classes(self.folder, describe_classes(merged, source, settings))
        return merged

    def _path(self, name: str) -> Path:
        path = self.folder / f"{name}.png"
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise RefusedError(f"image name '{name}' leaves the folder of masks; rename the image")
        return path


def _version(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _keep(path: Path) -> None:
    """Copy a mask to a hidden file beside it, which readers of masks leave out."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    path.with_name(f".{path.stem}.before-{stamp}.png").write_bytes(path.read_bytes())
