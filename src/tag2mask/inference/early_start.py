"""Let worker processes import their libraries while this process imports its own.

Workers are forked from a server process that has imported PyTorch. Started here, before this
process imports PyTorch and loads a network, the server costs no time on a second core. This module
imports nothing but the standard library.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from multiprocessing import forkserver

WORKERS = "tag2mask.inference.workers"


def start_early(workers: int) -> None:
    """Start the server of worker processes if there will be any.

    Where the system has no such server, workers start later by themselves.

    Args:
        workers: Number of processes that make masks; 1 is this one.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    known = multiprocessing.get_all_start_methods()
    if workers > 1 and in_main_thread and "forkserver" in known:
        multiprocessing.get_context("forkserver").set_forkserver_preload([WORKERS])
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C ends it by us
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)
