"""Files that appear complete or not at all, also when the disk or the process fails."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tag2mask.errors import RunError
from tag2mask.io.files import write_atomically, write_text

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
