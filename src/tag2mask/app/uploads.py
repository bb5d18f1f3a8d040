"""Images that visitors dropped on the page, each for its visitor alone.

They lie in a temporary folder under names that the server chooses, and disappear with it.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from tag2mask.app.limits import Limits
from tag2mask.app.refusals import NotFoundError, RefusedError, TooLargeError
from tag2mask.errors import DataError
from tag2mask.io.heif import can_read_heif, open_image
from tag2mask.io.images import PILLOW_ERRORS, one_line, read_image

_SUFFIXES = {".jpeg": ".jpg", ".tiff": ".tif", ".heif": ".heic"}
_LONGEST_NAME = 80


@dataclass(slots=True)
class Upload:
    """One uploaded image."""

    identifier: str
    session: str
    """Visitor who sent it."""
    name: str
    """Safe name without suffix, unique among the visitor's images."""
    path: Path
    used_at: float = 0.0

    @property
    def mask_path(self) -> Path:
        """Where the mask goes that the visitor saves."""
        return self.path.with_name(f"{self.identifier}_mask.png")


class Uploads:
    """The uploaded images of all visitors; its methods may be called from any thread."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._folder = tempfile.TemporaryDirectory(prefix="tag2mask-app-")
        self._kept: dict[str, Upload] = {}
        self._lock = threading.Lock()
        can_read_heif()  # registers its decoder where the extra is installed

    def add(self, session: str, file_name: str, content: bytes) -> Upload:
        """Keep an image.

        Args:
            session: The visitor.
            file_name: As the browser says; only letters for a name are taken from it.
            content: The file.

        Raises:
            TooLargeError: If the file, its pixels or the number of uploads pass a limit.
            RefusedError: If it is no image.
        """
        if len(content) > self._limits.upload_bytes:
            raise TooLargeError(
                f"{file_name}: larger than {self._limits.upload_mib} MiB; shrink the image"
            )
        identifier = f"u{secrets.token_hex(8)}"
        path = Path(self._folder.name, identifier)
        path.write_bytes(content)
        try:
            path = self._checked(path, file_name)
            with self._lock:
                self._drop_oldest()
                upload = Upload(identifier, session, self._unique(session, file_name), path)
                upload.used_at = self._clock()
                self._kept[identifier] = upload
        except RefusedError:
            path.unlink(missing_ok=True)
            raise
        return upload

    def find(self, session: str, identifier: str) -> Upload:
        """Return an image of a visitor.

        Raises:
            NotFoundError: If the visitor has no such image.
        """
        with self._lock:
            upload = self._kept.get(identifier)
            if upload is None or upload.session != session:
                raise NotFoundError("this image is no longer on the page; drop it again")
            upload.used_at = self._clock()
            return upload

    def of(self, session: str) -> list[Upload]:
        """Return the images of a visitor in the order of upload."""
        with self._lock:
            return [upload for upload in self._kept.values() if upload.session == session]

    def remove(self, session: str, identifier: str) -> None:
        """Forget an image of a visitor.

        Raises:
            NotFoundError: If the visitor has no such image.
        """
        self.find(session, identifier)
        with self._lock:
            self._drop(identifier)

    def close(self) -> None:
        """Delete all uploads."""
        self._folder.cleanup()

    def _checked(self, path: Path, file_name: str) -> Path:
        """Check that a file is an image within the limits; return it with its true suffix."""
        try:
            with open_image(path) as opened:
                (width, height), suffix = opened.size, f".{(opened.format or '').lower()}"
        except PILLOW_ERRORS as error:
            hint = "" if can_read_heif() else " (for HEIC: pip install 'tag2mask[heic]')"
            raise RefusedError(
                f"{file_name}: is not an image that the page can read{hint}; use JPEG, PNG, WebP "
                "or TIFF"
            ) from error
        if width * height > self._limits.image_px:
            raise TooLargeError(
                f"{file_name}: {width}x{height} px is too large for the page (at most "
                f"{self._limits.image_mpx} million pixels); shrink the image"
            )
        named = path.with_suffix(_SUFFIXES.get(suffix, suffix))
        path.rename(named)
        try:
            read_image(named)
        except DataError as error:
            named.unlink(missing_ok=True)
            reason = one_line(error.__cause__ or error)
            raise RefusedError(f"{file_name}: the image is damaged ({reason})") from error
        return named

    def _drop_oldest(self) -> None:
        """Drop idle uploads if the number of uploads is at its limit."""
        if len(self._kept) < self._limits.uploads:
            return
        oldest = min(self._kept.values(), key=lambda upload: upload.used_at)
        if self._clock() - oldest.used_at < self._limits.idle_s:
            raise TooLargeError(
                f"the page keeps at most {self._limits.uploads} dropped images; remove some, or "
                "open a folder: tag2mask app RUN FOLDER"
            )
        self._drop(oldest.identifier)

    def _drop(self, identifier: str) -> None:
        upload = self._kept.pop(identifier)
        upload.path.unlink(missing_ok=True)
        upload.mask_path.unlink(missing_ok=True)

    def _unique(self, session: str, file_name: str) -> str:
        stem = safe_stem(file_name)
        taken = {one.name for one in self._kept.values() if one.session == session}
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}_{number}", number + 1
        return name


def safe_stem(file_name: str) -> str:
    r"""Return a file name for all systems from what a browser sent: no folders, no suffix.

    Example:
        >>> safe_stem("../../etc/passwd"), safe_stem(r"C:\photos\my cow.JPG"), safe_stem("..")
        ('passwd', 'my_cow', 'image')
    """
    last = PureWindowsPath(file_name).name
    stem = last.rpartition(".")[0] or last
    safe = re.sub(r"[^\w+-]+", "_", stem).strip("_")[:_LONGEST_NAME]
    return safe or "image"
