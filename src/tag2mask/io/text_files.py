"""Read text files that a person, another program or a crash may have damaged."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from tag2mask.errors import Tag2MaskError

MEBIBYTE = 2**20
MOST_BYTES = 256 * MEBIBYTE
"""Size of the largest text file that is read at once."""
NOT_REGULAR = "is not a regular file"
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Without it, opening a named pipe waits for a writer that may never come."""


def read_text(
    path: Path, kind: type[Tag2MaskError], *, advice: str = "", most_bytes: int = MOST_BYTES
) -> str:
    """Read a UTF-8 file of bounded size, with or without a byte order mark.

    Args:
        path: The file.
        kind: What to raise.
        advice: How to mend it, added to each message.
        most_bytes: Size of the largest file that is read.

    Raises:
        Tag2MaskError: Of `kind`, in one line: missing, no regular file, too large, not UTF-8.
    """
    end = f"; {advice}" if advice else ""
    try:
        with open_regular(path) as stream:
            content = stream.read(most_bytes + 1)
    except OSError as error:
        raise kind(f"{path}: cannot be read ({error.strerror}){end}") from error
    if len(content) > most_bytes:
        raise kind(f"{path}: is larger than {most_bytes / MEBIBYTE:,.3g} MiB{end}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {error.start:,}"
        raise kind(f"{path}: is not UTF-8 text ({where}); save it as UTF-8{end}") from error


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a named pipe, a device or a folder is refused without waiting.

    Raises:
        OSError: If it is missing, unreadable or no regular file; `strerror` says which.
    """
    handle = os.open(path, os.O_RDONLY | _NO_WAIT)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "is a folder" if path.is_dir() else NOT_REGULAR, str(path))
    return os.fdopen(handle, "rb")
