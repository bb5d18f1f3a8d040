"""Keep Ctrl-C and SIGTERM out of the few lines that must not be torn apart."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Signals by which a user or a scheduler ends a program."""


@contextmanager
def signals_delayed() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM after the body instead of inside of it.

    Only the handlers of this process wait; processes that the body starts receive every signal.
    Other threads than the main thread receive none anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for one in dict.fromkeys(arrived):
            signal.raise_signal(one)
