"""One launch at a time works in a folder: the second one is refused before it writes anything.

The lock is a small file in the folder. A process of this host that ended without removing it, even
by `kill -9`, is recognized by its number and start time. A process of another host touches its lock
every few seconds; once that stops for a minute, the lock is free. No file system has to support
locks for this.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tag2mask.errors import LockedError, RunError
from tag2mask.io.files import LOCK, temporary_beside
from tag2mask.io.json_files import parse_json
from tag2mask.io.processes import ProcessName, own_name

BEAT_S = 5.0
"""Interval in seconds at which the owner touches its lock."""
EXPIRED_S = 60.0
"""Seconds without a touch after which the lock of another host is free."""
_POLL_S = 0.5
_LAUNCH_KEY = "TORCHELASTIC_RUN_ID"
_log = logging.getLogger(__name__)


@dataclass
class _Held:
    """A lock of this process."""

    thread: int
    text: str
    """Content of the file."""
    depth: int = 1
    released: threading.Event = field(default_factory=threading.Event)


_held: dict[Path, _Held] = {}
_guard = threading.Lock()


@contextmanager
def folder_lock(folder: Path, part: str = "") -> Iterator[None]:
    """Work in a folder alone.

    The processes of one `torchrun` launch share the lock of a complete folder, which the first one
    takes. A restart takes over the lock of the processes that it replaces. A thread may take a
    lock that it has; other threads may not.

    Args:
        folder: Created if missing, and removed at the end if it is still empty.
        part: Part of the folder to lock, such as one shard of its masks. Parts exclude themselves
            and the complete folder, not each other; every process takes them.

    Raises:
        LockedError: If another process, or another thread of this one, works there.
        RunError: If the folder cannot be written.
    """
    if not part and _is_later_rank():
        yield
        return
    path = folder.absolute() / (f"{LOCK}-{part}" if part else LOCK)
    created = _create(folder.absolute())
    try:
        held = _take(path, folder)
        try:
            yield
        finally:
            _give_back(path, held)
    finally:
        for one in created:
            with suppress(OSError):  # it contains something
                one.rmdir()


def _create(folder: Path) -> list[Path]:
    """Create a folder; return what was created, the innermost folder first."""
    missing = []
    for one in (folder, *folder.parents):
        if one.exists():
            break
        missing.append(one)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file; give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return missing


def _take(path: Path, folder: Path) -> _Held:
    """Take a lock, or count that this thread has it once more."""
    thread = threading.get_ident()
    with _guard:
        if (held := _held.get(path)) is not None:
            if held.thread != thread:
                raise LockedError(
                    f"{folder}: another thread of this program works in this folder; "
                    "choose another folder"
                )
            held.depth += 1
            return held
        text = json.dumps(
            {
                "process": str(own_name()),
                "host": socket.gethostname(),
                "launch": _launch(),
                "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            }
        )
        try:
            _write_lock(path, folder, text)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        held = _held[path] = _Held(thread, text)
    threading.Thread(target=_beat, args=(path, held.released), daemon=True).start()
    return held


def _write_lock(path: Path, folder: Path, text: str) -> None:
    """Create the file of a lock unless another living process has it or one that excludes it."""
    temporary = temporary_beside(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        with _one_at_a_time(path.parent):
            for one in (path, *_excluding(path)):
                _remove_if_free(one, folder, now=temporary.stat().st_mtime)
            try:
                _give_name(temporary, path)
            except FileExistsError:
                raise _refusal(folder, _read(path)) from None
        for one in _excluding(path):  # a host that does not see this one's turn may be as fast
            if (other := _read(one)) is not None:
                path.unlink()
                raise _refusal(folder, other)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _excluding(path: Path) -> list[Path]:
    """Return the locks that a lock excludes: parts and the complete folder exclude each other."""
    if path.name == LOCK:
        return list(path.parent.glob(f"{LOCK}-*"))
    return [path.parent / LOCK]


def _give_name(temporary: Path, path: Path) -> None:
    """Give a complete file its name, unless there is one."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with path.open("x", encoding="utf-8") as file:
            file.write(temporary.read_text(encoding="utf-8"))


def _remove_if_free(path: Path, folder: Path, now: float) -> None:
    """Remove the lock of a dead process.

    Args:
        path: The lock; it may be missing.
        folder: As the user named it.
        now: Time by the clock of the disk.

    Raises:
        LockedError: If the process lives.
    """
    text = _read(path)
    if text is None:
        return
    if _is_alive(path, text, now):
        raise _refusal(folder, text)
    moved = temporary_beside(path)
    try:
        path.rename(moved)
    except FileNotFoundError:
        return
    if _read(moved) != text:  # another host has just replaced the dead lock by its own
        with suppress(OSError):
            _give_name(moved, path)
    moved.unlink()


def _is_alive(path: Path, text: str, now: float) -> bool:
    """Return whether the process of a lock works; waits for a sign of life of another host."""
    owner = _parse(text)
    process = ProcessName.parse(str(owner.get("process")))
    if process is None:  # locks appear complete, so the disk lost this one with its host
        return False
    if process.is_here:
        return process.is_running
    if owner.get("launch") and owner.get("launch") == _launch():
        return False  # a launch restarts its first process elsewhere only after it ended
    first = _touched(path)
    waited = 0.0
    while first is not None and now - first + waited <= EXPIRED_S:
        if waited == 0.0:
            _log.warning(
                "%s: waiting for a sign of life of process %s on host %s",
                *(path.parent, process.number, owner.get("host")),
            )
        time.sleep(_POLL_S)
        waited += _POLL_S
        if _touched(path) not in (first, None):
            return True
    return False


def _give_back(path: Path, held: _Held) -> None:
    """Release a lock where it was taken first; a forked child releases nothing."""
    with _guard:
        held.depth -= 1
        if held.depth:
            return
        held.released.set()
        _held.pop(path, None)
        if _read(path) == held.text and str(own_name()) == _parse(held.text)["process"]:
            with suppress(OSError):
                path.unlink()


def _beat(path: Path, released: threading.Event) -> None:
    """Touch a lock until it is released."""
    while not released.wait(BEAT_S):
        with suppress(OSError):
            os.utime(path)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let the processes of this host check locks in turn, where the file system supports it."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_later_rank() -> bool:
    """Return whether a launcher started this process, and another one before it."""
    is_launched = all(os.environ.get(name, "").isdigit() for name in ("RANK", "WORLD_SIZE"))
    return is_launched and os.environ["RANK"] != "0"


def _launch() -> str:
    """Return what identifies a launch of `torchrun` on all its hosts; empty without a launcher."""
    launch = os.environ.get(_LAUNCH_KEY, "")
    return "" if launch == "none" else launch


def _touched(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _read(path: Path) -> str | None:
    """Return the content of a lock; None if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _parse(text: str) -> dict[str, Any]:
    """Return the values of a lock; empty if it is damaged."""
    try:
        values = parse_json(text)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _refusal(folder: Path, text: str | None) -> LockedError:
    owner = _parse(text or "")
    process = ProcessName.parse(str(owner.get("process")))
    who = "another process" if process is None else f"process {process.number}"
    where = f" on host {owner['host']}" if isinstance(owner.get("host"), str) else ""
    since = f" since {owner['since']}" if isinstance(owner.get("since"), str) else ""
    return LockedError(
        f"{folder}: {who}{where} works in this folder{since}; wait until it is done, or choose "
        "another folder"
    )


def _cannot_write(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"{folder}: cannot be written ({error.strerror or error}); free space, or choose another "
        "folder"
    )
