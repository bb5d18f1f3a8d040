"""Which process a file belongs to, and whether that process still runs.

A process number alone says little: numbers are used again, and two machines or containers that
share a disk use the same ones. So a process is named by its host, its number and its start time.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

_PROC = Path("/proc")
_ENDED = frozenset("ZX")
"""States in /proc of a process that has ended, but was not collected by its parent yet."""


class ProcessName(NamedTuple):
    """Names one process among all hosts that may share a disk.

    Example:
        >>> ProcessName.parse(str(own_name())) == own_name()
        True
    """

    host: str
    """Eight hexadecimal digits; see `own_host`."""
    number: int
    started: int
    """Start time in ticks since the host started; 0 where the system does not tell."""

    def __str__(self) -> str:
        """Return a text without dots that file names can contain."""
        return f"{self.host}-{self.number}-{self.started}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what `str` returned; None if it is something else."""
        found = re.fullmatch(r"([0-9a-f]{8})-([0-9]{1,10})-([0-9]{1,20})", text)
        return None if found is None else cls(found[1], int(found[2]), int(found[3]))

    @property
    def is_here(self) -> bool:
        """Whether it ran on this host, so that `is_running` can tell; Windows cannot."""
        return self.host == own_host() and os.name != "nt"

    @property
    def is_running(self) -> bool:
        """Whether this process of this host still runs."""
        try:
            os.kill(self.number, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            pass  # it runs as another user
        return _start_time(self.number) == self.started


def own_name() -> ProcessName:
    """Return the name of this process."""
    number = os.getpid()
    return ProcessName(own_host(), number, _start_time(number) or 0)


@cache
def own_host() -> str:
    """Identify this start of this machine, and the container with its own process numbers."""
    parts = [socket.gethostname()]
    try:
        parts.append((_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8"))
        parts.append(str((_PROC / "self/ns/pid").readlink()))
    except OSError:
        pass  # no Linux
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _start_time(number: int) -> int | None:
    """Return the start time of a process in ticks; None if it has ended, 0 if unknown."""
    if not _PROC.joinpath("self/stat").exists():
        return 0
    try:
        text = (_PROC / str(number) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may contain anything
    return None if fields[0] in _ENDED else int(fields[19])
