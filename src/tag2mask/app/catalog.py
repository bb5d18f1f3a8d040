"""All images of the page: those of the folder, and those that a visitor dropped.

The browser names an image by an identifier that the server gave it: a number for the folder, a
random word for an upload. No path from a browser is ever opened.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tag2mask.app.image_folder import FolderImage
from tag2mask.app.refusals import NotFoundError
from tag2mask.app.uploads import Upload, Uploads


class PageImage(NamedTuple):
    """One image that a visitor may see."""

    identifier: str
    name: str
    path: Path
    tags: tuple[str, ...] | None
    """Tags from the folder; None if there are none, as for every upload."""
    upload: Upload | None = None
    """None: it belongs to the folder."""


class Catalog:
    """Finds images by identifier, and lists them with the most uncertain ones first."""

    def __init__(self, folder: Sequence[FolderImage], uploads: Uploads) -> None:
        self.uploads = uploads
        self._folder = [
            PageImage(str(index), image.name, image.path, image.tags)
            for index, image in enumerate(folder)
        ]
        self._uncertainty = {
            str(index): image.uncertainty
            for index, image in enumerate(folder)
            if image.uncertainty is not None
        }
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._folder)

    @property
    def ranked(self) -> int:
        """Number of images of the folder whose uncertainty is known."""
        return len(self._uncertainty)

    def find(self, session: str, identifier: str) -> PageImage:
        """Return an image that a visitor may see.

        Raises:
            NotFoundError: If there is none.
        """
        if identifier.startswith("u"):
            return _of_upload(self.uploads.find(session, identifier))
        if identifier.isascii() and identifier.isdecimal() and len(identifier) < 10:
            index = int(identifier)
            if index < len(self._folder):
                return self._folder[index]
        raise NotFoundError(f"there is no image '{identifier[:20]}' on this page")

    def listed(self, session: str) -> list[PageImage]:
        """Return what a visitor may see: uploads, then the folder, most uncertain first.

        Images whose uncertainty is not known yet come last, in the order of their names.
        """
        with self._lock:
            known = dict(self._uncertainty)
        folder = sorted(self._folder, key=lambda image: -known.get(image.identifier, -1.0))
        return [*map(_of_upload, self.uploads.of(session)), *folder]

    def uncertainty(self, image: PageImage) -> float | None:
        """Return the uncertainty of an image of the folder; None if it is not known."""
        return self._uncertainty.get(image.identifier)

    def set_uncertainty(self, image: PageImage, value: float) -> None:
        """Record the uncertainty of an image of the folder."""
        with self._lock:
            self._uncertainty[image.identifier] = value

    def unranked(self) -> Iterator[PageImage]:
        """Yield the images of the folder whose uncertainty is not known yet."""
        return (image for image in self._folder if image.identifier not in self._uncertainty)


def _of_upload(upload: Upload) -> PageImage:
    return PageImage(upload.identifier, upload.name, upload.path, None, upload)
