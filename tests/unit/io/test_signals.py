import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tag2mask.io.signals import signals_delayed


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """Background jobs of a shell ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_arrives_after_the_body_is_done() -> None:
    done = []

    def work() -> None:
        with signals_delayed():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_body_puts_the_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), signals_delayed():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_run_the_body_at_once() -> None:
    ran = []

    def body() -> None:
        with signals_delayed():
            ran.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert ran == [signal.default_int_handler]
