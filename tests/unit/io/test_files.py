"""Files that appear complete or not at all, also when the disk or the process fails."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tag2mask.errors import RunError
from tag2mask.io.files import (
    remove_leftovers,
    replacing,
    temporary_beside,
    visible_names,
    write_atomically,
    write_text,
)
from tag2mask.io.processes import own_name

WRITE = """
import os, resource, sys
from pathlib import Path
from tag2mask.errors import RunError
from tag2mask.io.files import write_atomically
path, failure = Path(sys.argv[1]), sys.argv[2]
if failure == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
if failure == "other user":
    os.seteuid(65534)
def write(temporary):
    temporary.write_bytes(b"half")
    if failure == "kill":
        os.kill(os.getpid(), 9)
    temporary.write_bytes(b"new" * 1_000_000)
try:
    write_atomically(path, write)
except RunError as error:
    print(error)
    sys.exit(2)
"""


def write_in_process(path: Path, failure: str) -> subprocess.CompletedProcess[str]:
    """Write 3 MB to `path` in a process of its own, with a failure on the way."""
    return subprocess.run(
        [sys.executable, "-c", WRITE, str(path), failure],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_rejected_and_intact(
    process: subprocess.CompletedProcess[str], path: Path, reason: str
) -> None:
    assert process.returncode == 2, process.stderr
    (line,) = process.stdout.splitlines()
    assert line.startswith(f"{path}: cannot be saved ({reason}); the previous one is intact")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_text_is_replaced_and_no_other_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.json"
    for value in ("ä", "b"):
        write_text(path, value)
        assert path.read_text(encoding="utf-8") == value
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.json"]


def test_files_get_the_permissions_of_any_other_file(tmp_path: Path) -> None:
    def write_private(temporary: Path) -> None:
        temporary.write_bytes(b"x")
        temporary.chmod(0o600)  # as safetensors does

    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "written", write_private)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "written")]
    assert modes[0] == modes[1]


def test_a_failing_writer_leaves_the_previous_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"No space left on device.* previous one is intact"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX resource limits")
def test_a_file_size_limit_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert_rejected_and_intact(write_in_process(path, "limit"), path, "File too large")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs rights to mount")
def test_a_full_disk_leaves_the_previous_file(tmp_path: Path) -> None:
    size = ["-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if subprocess.run(["mount", *size], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        process = write_in_process(path, "none")
        assert_rejected_and_intact(process, path, "No space left on device")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_a_missing_permission_leaves_the_previous_file(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    path = folder / "file"
    path.write_bytes(b"old")
    folder.chmod(0o555)
    for parent in (tmp_path, *tmp_path.parents[:2]):  # pytest closes its folders to other users
        if parent.owner() == path.owner() and parent != Path("/tmp"):
            parent.chmod(0o755)
    try:
        process = write_in_process(path, "other user" if os.geteuid() == 0 else "none")
        assert_rejected_and_intact(process, path, "Permission denied")
    finally:
        folder.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_killed_writer_leaves_the_previous_file_and_the_next_write_cleans_up(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert write_in_process(path, "kill").returncode == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    write_atomically(path, lambda temporary: temporary.write_bytes(b"new"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"new"


DEAD = ".{name}-0.part"


def dead_name(path: Path) -> Path:
    """Name of an unfinished file of a process of this host that has ended."""
    return path / DEAD.format(name=own_name()._replace(started=1))


def test_leftovers_of_dead_processes_are_removed_and_files_of_living_ones_stay(
    tmp_path: Path,
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "image.png").touch()
    living = temporary_beside(tmp_path / "x")
    foreign = tmp_path / ".0123abcd-7-7-0.part"
    for path in (living, foreign, dead_name(tmp_path), inner / "not.part"):
        path.touch()
    dead_name(inner).mkdir()
    (dead_name(inner) / "half.safetensors").touch()
    remove_leftovers(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"image.png", living.name, foreign.name, "inner", "inner/not.part"}
    os.utime(foreign, (0, 0))
    remove_leftovers(tmp_path)
    assert not foreign.exists()
    assert living.exists()


def test_locks_and_unfinished_files_are_no_content(tmp_path: Path) -> None:
    for name in (".lock", ".lock-0-of-2", DEAD.format(name=own_name())):
        (tmp_path / name).touch()
    assert visible_names(tmp_path) == []
    (tmp_path / ".hidden").touch()
    assert visible_names(tmp_path) == [".hidden"]


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write_twice(temporary: Path) -> None:
        write_atomically(path, lambda inner: inner.write_bytes(b"inner"))
        temporary.write_bytes(b"outer")

    write_atomically(path, write_twice)
    assert path.read_bytes() == b"outer"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.png"]
