"""Read members of zip archives that another program wrote, or that a crash has cut off."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tag2mask.errors import DataError
from tag2mask.io.text_files import MEBIBYTE, open_regular

MOST_BYTES = 256 * MEBIBYTE
"""Size of the largest member, unpacked; a small archive can hold a huge one."""
_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,  # the member is encrypted
    ValueError,
)


@contextmanager
def open_zip(path: Path, advice: str) -> Iterator[zipfile.ZipFile]:
    """Open an archive for reading.

    Args:
        path: The archive.
        advice: What to give instead, for the message.

    Raises:
        DataError: If it is no zip file.
    """
    try:
        stream = open_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    with stream:
        try:
            archive = zipfile.ZipFile(stream)
        except _ERRORS as error:
            raise DataError(f"{path}: is no zip file; {advice}") from error
        with archive:
            yield archive


def read_member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Read one member.

    Args:
        archive: From `open_zip`.
        name: Of the member.
        path: Of the archive, for messages.

    Raises:
        DataError: If it is missing, damaged, encrypted or too large.
    """
    try:
        size = archive.getinfo(name).file_size
        if size > MOST_BYTES:
            raise DataError(f"{path}: {name}: has {size / MEBIBYTE:,.0f} MiB, too many to read")
        return archive.read(name)
    except _ERRORS as error:
        raise DataError(f"{path}: {name}: cannot be read ({error})") from error


def read_text_member(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    """Read one member in UTF-8.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return read_member(archive, name, path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {name}: is not UTF-8 text") from error
