"""Files that appear complete or not at all: written beside the target, then renamed.

A full disk, a missing permission or a killed process leaves the previous file intact. Unfinished
files carry the name of their process, so two processes never share one, and those of dead processes
can be removed.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tag2mask.errors import RunError
from tag2mask.io.processes import ProcessName, own_name

LOCK = ".lock"
"""Begins the name of the file that says which process works in a folder; see `io.locks`."""
FOREIGN_LEFTOVER_S = 24 * 3600.0
"""Age in seconds from which an unfinished file of another host is a leftover."""
_UNFINISHED = re.compile(r"\.([0-9a-f]+-\d+-\d+)-\d+\.part")
_numbers = itertools.count()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file completely or not at all.

    Raises:
        RunError: If the disk is full or writing is not allowed.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file in a folder beside `path`, flush it to disk, then rename it.

    The folder also holds the temporary files that a writer creates itself, as safetensors does.

    Args:
        path: Target; its folder is created if missing.
        write: Receives the temporary path and fills it.

    Raises:
        RunError: If the disk is full or writing is not allowed; no temporary file is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staging_beside(path) as staging:
            temporary = staging / path.name
            temporary.touch()
            mode = temporary.stat().st_mode  # as the umask says; safetensors would give 0600
            write(temporary)
            temporary.chmod(mode)
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be saved ({error.strerror or error}); the previous one is intact. "
            "Free space, or choose another folder"
        ) from error


@contextmanager
def staging_beside(path: Path) -> Iterator[Path]:
    """Give a temporary folder in the folder of `path`; it disappears with all that is left in it.

    Leftovers of dead processes there are removed first.
    """
    _remove_leftovers_of(path.parent)
    staging = temporary_beside(path)
    try:
        staging.mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file that takes the place of `path`, or disappears if the body fails.

    Unlike `write_atomically` it does not wait for the disk, which is for many small files.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def temporary_beside(path: Path) -> Path:
    """Return a new hidden name in the folder of `path` that says which process writes there."""
    return path.with_name(f".{own_name()}-{next(_numbers)}.part")


def visible_names(folder: Path) -> list[str]:
    """List what a folder contains, except locks and unfinished files."""
    return [
        path.name
        for path in folder.iterdir()
        if not (path.name.startswith(LOCK) or _UNFINISHED.fullmatch(path.name))
    ]


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of dead processes from a folder and the folders in it."""
    for parent, folders, _ in os.walk(folder):
        _remove_leftovers_of(Path(parent))
        folders[:] = [name for name in folders if not _UNFINISHED.fullmatch(name)]


def _remove_leftovers_of(folder: Path) -> None:
    """Remove the unfinished files of dead processes from one folder."""
    with os.scandir(folder) as entries:
        leftovers = [Path(entry) for entry in entries if _is_leftover(entry)]
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _is_leftover(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is an unfinished file that nobody will finish."""
    found = _UNFINISHED.fullmatch(entry.name)
    process = None if found is None else ProcessName.parse(found[1])
    if process is None:
        return False
    if process.is_here:
        return not process.is_running
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > FOREIGN_LEFTOVER_S
    except OSError:
        return False


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
