"""Two processes never work in one folder; the lock of a dead one is taken over."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from functools import cached_property
from pathlib import Path

import pytest

from tag2mask.errors import LockedError, RunError
from tag2mask.io import locks
from tag2mask.io.locks import folder_lock
from tag2mask.io.processes import own_name

HOLD = """
import sys, time
from pathlib import Path
from tag2mask.errors import LockedError
from tag2mask.io.locks import folder_lock
try:
    with folder_lock(Path(sys.argv[1]), sys.argv[2]):
        print("holds", flush=True)
        sys.stdin.readline()
except LockedError as error:
    print(error, flush=True)
"""


class Holder:
    """A process that holds the lock of a folder until it gets a line."""

    def __init__(self, folder: Path, part: str = "", **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), part],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    @cached_property
    def answer(self) -> str:
        """`holds`, or why it does not."""
        return self.process.stdout.readline().strip()

    def __enter__(self) -> "Holder":
        assert self.answer
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate("\n")


def answer_of(folder: Path, part: str = "") -> str:
    """What a process answers that asks for a lock."""
    with Holder(folder, part) as holder:
        return holder.answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "new" / "run"


def put_lock(folder: Path, **changes: object) -> Path:
    """Write the lock of another process of another host."""
    folder.mkdir(parents=True)
    values = {"process": "0123abcd-77-1", "host": "other", "launch": "", "since": "noon"}
    path = folder / ".lock"
    path.write_text(json.dumps(values | changes), encoding="utf-8")
    return path


def test_a_folder_is_created_and_removed_if_it_stays_empty(folder: Path) -> None:
    with folder_lock(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert not folder.parent.exists()
    with folder_lock(folder):
        (folder / "recipe.yaml").touch()
    assert [path.name for path in folder.iterdir()] == ["recipe.yaml"]


def test_a_second_process_is_refused_with_one_line_while_the_first_one_works(
    folder: Path,
) -> None:
    with Holder(folder) as first:
        assert first.answer == "holds"
        with pytest.raises(LockedError) as caught, folder_lock(folder):
            pass
        text = str(caught.value)
        assert text.startswith(f"{folder}: process {first.process.pid} on host ")
        assert text.endswith("wait until it is done, or choose another folder")
        assert "\n" not in text
        assert caught.value.exit_code == 2
    with folder_lock(folder):
        pass


def test_a_killed_process_leaves_a_lock_that_the_next_one_takes_over(folder: Path) -> None:
    with Holder(folder) as holder:
        holder.process.send_signal(signal.SIGKILL)
    assert (folder / ".lock").is_file()
    with folder_lock(folder):
        text = (folder / ".lock").read_text("utf-8")
        assert json.loads(text)["process"] == str(own_name())
    assert not (folder / ".lock").exists()


def test_a_lock_survives_an_error_in_the_body(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), folder_lock(folder):
        _ = 1 / 0
    assert not folder.exists()


def test_the_same_thread_may_take_its_lock_again_another_one_may_not(folder: Path) -> None:
    refused = []

    def take() -> None:
        try:
            with folder_lock(folder):
                pass
        except LockedError as error:
            refused.append(str(error))

    with folder_lock(folder):
        with folder_lock(folder):
            pass
        assert (folder / ".lock").is_file()
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert "another thread of this program" in refused[0]


def test_parts_exclude_themselves_and_the_complete_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    with folder_lock(folder, "0-of-2"), Holder(folder, "1-of-2") as other:
        assert other.answer == "holds"
        for part in ("1-of-2", ""):
            with pytest.raises(LockedError), folder_lock(folder, part):
                pass
        assert answer_of(folder, "0-of-2").startswith(str(folder))
    with Holder(folder) as whole:
        assert whole.answer == "holds"
        with pytest.raises(LockedError), folder_lock(folder, "0-of-2"):
            pass
    assert list(folder.iterdir()) == []


def test_one_of_many_processes_that_start_at_once_gets_the_lock(folder: Path) -> None:
    put_lock(folder, process=str(own_name()._replace(started=1)))  # a dead one to take over
    holders = [Holder(folder) for _ in range(8)]
    found = [holder.answer for holder in holders]
    for holder in holders:
        holder.process.communicate("\n")
    assert found.count("holds") == 1
    assert sum("works in this folder" in answer for answer in found) == 7


def test_other_ranks_of_a_launch_share_the_lock_of_the_first_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with Holder(folder, RANK="0") as first:
        assert first.answer == "holds"
        monkeypatch.setenv("RANK", "1")
        with folder_lock(folder):
            pass
        with pytest.raises(LockedError), folder_lock(folder, "1-of-2"):
            pass


def test_another_host_that_shows_no_sign_of_life_for_a_minute_is_dead(folder: Path) -> None:
    path = put_lock(folder)
    long_ago = time.time() - locks.EXPIRED_S - 1
    os.utime(path, (long_ago, long_ago))
    with folder_lock(folder):
        pass


def test_another_host_that_touches_its_lock_lives(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = put_lock(folder)
    monkeypatch.setattr(locks, "_POLL_S", 0.05)
    timer = threading.Timer(0.2, os.utime, (path,))
    timer.start()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(LockedError, match="process 77 on host other works in this folder since"),
        folder_lock(folder),
    ):
        pass
    timer.join()
    assert "waiting for a sign of life of process 77 on host other" in caplog.text


def test_another_host_that_has_just_died_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_lock(folder)
    monkeypatch.setattr(locks, "_POLL_S", 0.02)
    monkeypatch.setattr(locks, "EXPIRED_S", 0.2)
    started = time.monotonic()
    with folder_lock(folder):
        assert time.monotonic() - started > 0.1


def test_a_launch_takes_over_its_own_lock_from_another_host(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    put_lock(folder, launch="job7")
    with folder_lock(folder):
        assert json.loads((folder / ".lock").read_text("utf-8"))["launch"] == "job7"


def test_launches_without_a_name_are_not_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    path = put_lock(folder, launch="")
    monkeypatch.setattr(locks, "_POLL_S", 0.01)
    timer = threading.Timer(0.1, os.utime, (path,))
    timer.start()
    with pytest.raises(LockedError), folder_lock(folder):
        pass
    timer.join()


def test_the_owner_touches_its_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 0.02)
    with folder_lock(folder):
        os.utime(folder / ".lock", (0, 0))
        deadline = time.monotonic() + 10
        while (folder / ".lock").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": 3}', "\x00\x00"])
def test_a_damaged_lock_belongs_to_nobody(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / ".lock").write_text(content, encoding="utf-8")
    with folder_lock(folder):
        pass


def test_a_file_system_without_hard_links_is_locked_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with folder_lock(folder):
        assert answer_of(folder).startswith(f"{folder}: process {os.getpid()} on host ")


def test_a_file_in_place_of_the_folder_and_a_missing_permission_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(RunError, match=r"file: is a file; give a folder$"), folder_lock(path):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with (
        pytest.raises(RunError, match=r"cannot be written \(Permission denied\)"),
        folder_lock(tmp_path / "run"),
    ):
        pass
    assert not (tmp_path / "run").exists()
