from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.io.tar_shards import MaskTar, read_samples


def png(value: int) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (6, 4), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_files_of_one_key_are_one_sample(tmp_path: Path) -> None:
    tags = json.dumps({"tags": ["cat", "dog"]}).encode()
    files = {
        "lane/a.png": png(10),
        "lane/a.json": tags,
        "lane/a.txt": b"a cat",
        "b.seg.png": png(2),
    }
    first, second = read_samples(write_tar(tmp_path / "0.tar", files))
    assert (first.name, first.suffix, first.tags()) == ("lane/a", ".png", ["cat", "dog"])
    assert first.decode()[0, 0].tolist() == [10, 0, 0]
    assert (second.name, second.suffix) == ("b", ".seg.png")
    with pytest.raises(DataError, match=r'b\.json: needs \{"tags"'):
        second.tags()


def test_the_json_file_may_stand_before_the_image(tmp_path: Path) -> None:
    files = {"a.json": b'{"tags": []}', "a.png": png(1), "only.json": b"{}"}
    (sample,) = read_samples(write_tar(tmp_path / "0.tar", files))
    assert sample.tags() == []


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("../../etc/a.png", png(1), "leaves its folder"),
        ("/etc/a.png", png(1), "leaves its folder"),
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
    ],
)
def test_hostile_files_are_rejected(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        list(read_samples(write_tar(tmp_path / "0.tar", {name: data})))


def test_links_and_folders_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert list(read_samples(path)) == []


def test_a_damaged_image_names_itself_and_a_damaged_tar_its_file(tmp_path: Path) -> None:
    (sample,) = read_samples(write_tar(tmp_path / "0.tar", {"a.png": b"no picture"}))
    with pytest.raises(DataError, match=r"^a\.png: cannot be read"):
        sample.decode()
    whole = write_tar(tmp_path / "1.tar", {"a.png": png(1), "b.png": png(2)}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 16])
    with pytest.raises(DataError, match=r"cut\.tar: cannot be read as a tar file"):
        list(read_samples(tmp_path / "cut.tar"))
    with pytest.raises(DataError, match="no such file"):
        list(read_samples(tmp_path / "gone.tar"))


def test_masks_and_rows_come_back_and_every_attempt_writes_the_same_bytes(tmp_path: Path) -> None:
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for name in ("0.tar", "1.tar"):
        with MaskTar(tmp_path / name) as archive:
            archive.add("lane/kühe", mask, {"name": "lane/kühe", "scores": {"cat": 0.5}})
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
    with tarfile.open(tmp_path / "0.tar") as archive:
        assert archive.getnames() == ["lane/kühe.png", "lane/kühe.json"]
        with PILImage.open(archive.extractfile("lane/kühe.png")) as picture:
            assert picture.mode == "P"
            assert np.array_equal(np.asarray(picture), mask)
        row = json.loads(archive.extractfile("lane/kühe.json").read())
    assert row["scores"] == {"cat": 0.5}


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it closes files late
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_masks_and_rows(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    mask = np.full((4, 6), 2, dtype=np.uint8)
    with MaskTar(tmp_path / "0.tar") as archive:
        archive.add("lane/a", mask, {"name": "lane/a", "scores": {"cat": 0.5}})
    (sample,) = webdataset.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False)
    assert sample["__key__"] == "lane/a"
    assert json.loads(sample["json"])["name"] == "lane/a"
    with PILImage.open(io.BytesIO(sample["png"])) as picture:
        assert np.array_equal(np.asarray(picture), mask)


@pytest.mark.ray
def test_files_that_webdataset_writes_are_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "0.tar")) as archive:
        archive.write({"__key__": "lane/a", "png": png(9), "json": {"tags": ["cat"]}})
    (sample,) = read_samples(tmp_path / "0.tar")
    assert (sample.name, sample.tags()) == ("lane/a", ["cat"])
    assert sample.decode()[0, 0].tolist() == [9, 0, 0]
