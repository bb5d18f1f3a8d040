"""Files that appear complete or not at all: written beside the target, flushed, then renamed.

A full disk, a missing permission or a killed process leaves the previous file intact.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tag2mask.errors import RunError

TEMPORARY_SUFFIX = ".part"
"""Suffix of folders that hold an unfinished file; one left by a killed process is harmless."""


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file completely or not at all.

    Raises:
        RunError: If the disk is full or writing is not allowed.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file in a folder beside `path`, flush it to disk, then rename it.

    The folder also holds the temporary files that a writer creates itself (safetensors does), so
    leftovers of a killed process disappear with the next write.

    Args:
        path: Target; its folder is created if missing.
        write: Receives the temporary path and fills it.

    Raises:
        RunError: If the disk is full or writing is not allowed; no temporary file is left behind.
    """
    staging = path.with_name(f"{path.name}{TEMPORARY_SUFFIX}")
    temporary = staging / path.name
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask gives; safetensors would give 0600
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
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
