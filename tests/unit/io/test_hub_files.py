import hashlib
from pathlib import Path

import pytest

from tag2mask.errors import WeightsError
from tag2mask.io.hub_files import is_hub_id, split_revision, verify_download


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", True),
        ("org/name@main", True),
        (f"org/name@{'0' * 40}", True),
        ("org/name@", False),
        ("org", False),
        ("org/name/more", False),
        ("../name", False),
        ("org/name@a/b", False),
    ],
)
def test_ids_may_have_a_revision(text: str, expected: bool) -> None:
    assert is_hub_id(text) is expected
    assert split_revision(text)[0] == (text.split("@")[0] if expected else text)


def cached(folder: Path, name: str, content: bytes) -> Path:
    """Store a file as the hub's cache does: a link with the file's name to a blob of its hash."""
    (folder / "blobs").mkdir()
    (folder / "snapshots").mkdir()
    (folder / "blobs" / name).write_bytes(content)
    link = folder / "snapshots" / "model.bin"
    link.symlink_to(f"../blobs/{name}")
    return link


@pytest.mark.parametrize(
    "name",
    [
        hashlib.sha256(b"weights").hexdigest(),
        hashlib.sha1(b"blob 7\0weights").hexdigest(),  # as `git hash-object` computes it
    ],
)
def test_a_changed_file_of_the_cache_is_refused(tmp_path: Path, name: str) -> None:
    path = cached(tmp_path, name, b"weights")
    assert verify_download(path) == path
    path.resolve().write_bytes(b"weightz")
    with pytest.raises(WeightsError, match=r"model\.bin: differs from the file that the hub"):
        verify_download(path)


def test_files_outside_the_cache_are_not_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"x")
    assert verify_download(path) == path
