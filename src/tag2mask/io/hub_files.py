"""Hub ids with a revision, and the check that a download has the hash that the hub states.

`org/name@REVISION` names one state of a repository; a commit hash as revision can never mean other
files. The hub's cache calls each file by its hash, so a damaged or exchanged file is recognized.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tag2mask.errors import WeightsError

_HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w-][\w.-]*))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_BLOB = re.compile(r"[0-9a-f]{40}")


def is_hub_id(text: str) -> bool:
    """Return whether a text is `owner/name` or `owner/name@revision`."""
    return _HUB_ID.fullmatch(text) is not None


def split_revision(hub_id: str) -> tuple[str, str | None]:
    """Split `owner/name@revision` into repository and revision; None means the newest state.

    Example:
        >>> split_revision("org/name@v1.0"), split_revision("org/name")
        (('org/name', 'v1.0'), ('org/name', None))
    """
    found = _HUB_ID.fullmatch(hub_id)
    return (hub_id, None) if found is None else (found[1], found[2])


def verify_download(path: Path) -> Path:
    """Compare a file of the hub's cache with the hash in its name; other files are not checked.

    Returns:
        The path.

    Raises:
        WeightsError: If the content differs.
    """
    stored = path.resolve()
    if stored.parent.name != "blobs":
        return path
    with stored.open("rb") as file:
        if _SHA256.fullmatch(stored.name):  # a large file
            found = hashlib.file_digest(file, "sha256").hexdigest()
        elif _GIT_BLOB.fullmatch(stored.name):
            start = hashlib.sha1(b"blob %d\0" % stored.stat().st_size, usedforsecurity=False)
            start.update(file.read())
            found = start.hexdigest()
        else:
            return path
    if found != stored.name:
        raise WeightsError(
            f"{path}: differs from the file that the hub states (hash {found[:12]}, not "
            f"{stored.name[:12]}); remove {stored} and download it again"
        )
    return path
