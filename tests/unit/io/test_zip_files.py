import zipfile
from pathlib import Path

import pytest

from tag2mask.errors import DataError
from tag2mask.io import zip_files
from tag2mask.io.zip_files import open_zip, read_member, read_text_member


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.txt", "é")
        opened.writestr("b.bin", b"\xff" * 1000)
    return path


def test_members_are_read(archive: Path) -> None:
    with open_zip(archive, "give a zip") as opened:
        assert read_text_member(opened, "a.txt", archive) == "é"
        assert read_member(opened, "b.bin", archive) == b"\xff" * 1000


def test_a_member_that_unpacks_to_too_much_is_refused(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_files, "MOST_BYTES", 999)
    with open_zip(archive, "") as opened, pytest.raises(DataError, match=r"b\.bin: has"):
        read_member(opened, "b.bin", archive)


def test_missing_and_foreign_members_are_one_line(archive: Path) -> None:
    with open_zip(archive, "") as opened:
        with pytest.raises(DataError, match=r"a\.zip: c: cannot be read"):
            read_member(opened, "c", archive)
        with pytest.raises(DataError, match=r"a\.zip: b\.bin: is not UTF-8 text"):
            read_text_member(opened, "b.bin", archive)


def test_every_cut_of_an_archive_is_one_line(archive: Path) -> None:
    content = archive.read_bytes()
    for end in range(0, len(content), 7):
        archive.write_bytes(content[:end])
        with (
            pytest.raises(DataError, match=r"a\.zip: is no zip file; give a zip"),
            open_zip(archive, "give a zip"),
        ):
            pass
    archive.unlink()
    with pytest.raises(DataError, match=r"a\.zip: cannot be read"), open_zip(archive, ""):
        pass
