import os
from pathlib import Path

import pytest

from tag2mask.errors import DataError, RunError
from tag2mask.io.text_files import open_regular, read_text


def test_a_text_is_read_with_and_without_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + "é\r\n".encode())
        assert read_text(path, DataError) == "é\r\n"


def test_the_largest_allowed_file_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("12345")
    assert read_text(path, DataError, most_bytes=5) == "12345"
    with pytest.raises(DataError, match=r"a\.txt: is larger than"):
        read_text(path, DataError, most_bytes=4)


def test_a_pipe_a_device_and_a_folder_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(DataError, match="is not a regular file"):
            read_text(tmp_path / name, DataError)
    with pytest.raises(OSError, match="is a folder"):
        open_regular(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"a\xff", r"is not UTF-8 text \(byte 1\)")],
)
def test_the_message_has_kind_path_and_advice(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=rf"a\.txt: .*{message}.*; remove it"):
        read_text(path, RunError, advice="remove it")
