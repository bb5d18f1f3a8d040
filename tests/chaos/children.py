"""Command lines of the program in processes of their own, which start in milliseconds.

The processes are forked from a server that has imported everything once.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from tag2mask import api  # noqa: F401 the server imports what commands need
from tag2mask.cli.main import main

KILLED = -9
LONGEST_S = 600.0
"""A command that takes longer hangs."""


def start(words: Sequence[object], log: Path) -> BaseProcess:
    """Start `tag2mask WORDS`; its output goes to a file."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=([str(word) for word in words], log))
    process.start()
    return process


def finish(words: Sequence[object], log: Path) -> int | None:
    """Run `tag2mask WORDS` to its end; return its exit code, None if it hangs."""
    process = start(words, log)
    process.join(LONGEST_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def last_line(log: Path) -> str:
    """Return the last line that a command printed."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return lines[-1] if lines else ""


def _run(words: list[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)
    torch.set_num_threads(1)  # sums depend on their number
    multiprocessing.set_start_method("fork", force=True)  # as in a process that a shell starts
    raise SystemExit(main(words))
