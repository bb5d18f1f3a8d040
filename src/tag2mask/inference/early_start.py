"""Let worker processes import their libraries while this process imports its own.

Workers are forked from a server process that has imported PyTorch. Started here, before this
process imports PyTorch and loads a network, the server costs no time on a second core. This module
imports nothing but the standard library.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver

WORKERS = "tag2mask.inference.workers"


def start_early(workers: int) -> None:
    """Start the server of worker processes if there will be any.

    Where the system has no such server, workers start later by themselves.

    Args:
        workers: Number of processes that make masks; 1 is this one.
    """
    if workers > 1 and "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.get_context("forkserver").set_forkserver_preload([WORKERS])
        forkserver.ensure_running()
