import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tag2mask.io.processes import ProcessName, own_name

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def sleeper() -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def name_of(number: int) -> ProcessName:
    fields = Path(f"/proc/{number}/stat").read_text("utf-8").rpartition(")")[2].split()
    return own_name()._replace(number=number, started=int(fields[19]))


def test_a_name_survives_as_text_and_other_texts_are_none() -> None:
    assert ProcessName.parse(str(own_name())) == own_name()
    for text in ("", "None", "ab-1-2", "0123456g-1-2", "01234567-1-2.part", "01234567-1-", "é" * 9):
        assert ProcessName.parse(text) is None


def test_this_process_is_here_and_runs() -> None:
    name = own_name()
    assert name.is_here
    assert name.is_running
    assert name.number == os.getpid()
    assert not name._replace(host="0" * 8).is_here


@needs_proc
def test_a_process_runs_until_it_ends_even_uncollected() -> None:
    process = sleeper()
    name = name_of(process.pid)
    assert name.is_running
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
    assert not name.is_running
    process.wait()
    assert not name.is_running
    process.stdout.close()


@needs_proc
def test_a_number_that_is_used_again_is_another_process() -> None:
    name = own_name()
    assert not name._replace(started=name.started - 1).is_running
    assert not name._replace(number=2**31 - 1).is_running
    assert not name._replace(number=10**10 - 1).is_running


@needs_proc
def test_a_process_of_another_user_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(number: int, how: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert own_name().is_running
