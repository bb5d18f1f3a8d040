from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.data.base import Source
from tag2mask.errors import DataError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.shards import Shard
from tag2mask.inference.tar_job import OpenTarJob, tar_files


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def tars(source: Source, tmp_path: Path) -> Path:
    """Two files of two painted images each, with their tags."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in (0, 1):
        with tarfile.open(folder / f"{number:03d}.tar", "w") as archive:
            for index in (2 * number, 2 * number + 1):
                sample, stream = source[index], io.BytesIO()
                PILImage.fromarray(sample.image).save(stream, "PNG")
                tags = [source.class_names[one] for one in sample.tags.nonzero()[0]]
                add(archive, f"{sample.name}.png", stream.getvalue())
                add(archive, f"{sample.name}.json", json.dumps({"tags": tags}).encode())
    return folder


def masks_of(path: Path) -> dict[str, np.ndarray]:
    with tarfile.open(path) as archive:
        names = [name for name in archive.getnames() if name.endswith(".png")]
        found = {}
        for name in names:
            with PILImage.open(archive.extractfile(name)) as picture:
                found[name.removesuffix(".png")] = np.asarray(picture)
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def open_job(segmenter: Segmenter, tars: Path, out: Path, **changes: object) -> OpenTarJob:
    return OpenTarJob(segmenter, out, tar_files([tars]), **changes)


def test_masks_are_those_of_the_segmenter_and_every_file_has_a_manifest(
    segmenter: Segmenter, source: Source, tars: Path, tmp_path: Path
) -> None:
    summary = open_job(segmenter, tars, tmp_path / "out").write()
    assert (summary.written, summary.already, summary.masks.images) == (4, 0, 4)
    assert [one.tagged for one in summary.masks.classes.values()] == [1, 1, 1]
    found = masks_of(tmp_path / "out" / "000.tar") | masks_of(tmp_path / "out" / "001.tar")
    for index, name in enumerate(source.names):
        sample = source[index]
        expected = segmenter.segment(sample.image, sample.tags, name=name).mask
        assert np.array_equal(found[name], expected)
    manifest = json.loads((tmp_path / "out" / "000.json").read_text())
    assert (manifest["images"], manifest["masks"], manifest["unreadable"]) == (2, 2, {})
    again = open_job(segmenter, tars, tmp_path / "out").write()
    assert (again.written, again.already) == (0, 4)


def test_shards_write_what_one_process_writes(
    segmenter: Segmenter, tars: Path, tmp_path: Path
) -> None:
    open_job(segmenter, tars, tmp_path / "one").write()
    unfinished = [
        open_job(segmenter, tars, tmp_path / "parts").write(Shard(number, 2)).unfinished
        for number in (1, 0)
    ]
    assert unfinished == [(0,), ()]
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "one")


def test_batches_write_the_masks_of_single_images_in_their_order(
    segmenter: Segmenter, tars: Path, tmp_path: Path
) -> None:
    predict = segmenter.recipe.predict.model_copy(update={"batch_size": 2})
    recipe = segmenter.recipe.model_copy(update={"predict": predict})
    open_job(segmenter, tars, tmp_path / "one").write()
    open_job(Segmenter(segmenter.method, recipe), tars, tmp_path / "batches").write()
    for name in ("000.tar", "001.tar"):
        alone, together = (masks_of(tmp_path / folder / name) for folder in ("one", "batches"))
        assert list(together) == list(alone)
        for image, mask in alone.items():
            np.testing.assert_array_equal(together[image], mask)


def test_a_file_without_manifest_is_done_again_to_the_same_bytes(
    segmenter: Segmenter, tars: Path, tmp_path: Path
) -> None:
    open_job(segmenter, tars, tmp_path / "out").write()
    before = files_of(tmp_path / "out")
    (tmp_path / "out" / "000.json").unlink()
    (tmp_path / "out" / "000.tar").write_bytes(b"torn")
    summary = open_job(segmenter, tars, tmp_path / "out").write()
    assert (summary.written, summary.already) == (2, 2)
    assert files_of(tmp_path / "out") == before


def test_the_classifier_chooses_the_classes_of_untagged_files(
    segmenter: Segmenter, source: Source, tars: Path, tmp_path: Path
) -> None:
    open_job(segmenter, tars, tmp_path / "out", tagged=False).write()
    expected = segmenter.segment(source[1].image).mask
    assert np.array_equal(masks_of(tmp_path / "out" / "000.tar")["lane1/b"], expected)
    row = json.loads((tmp_path / "out" / "000.jsonl").read_text().splitlines()[0])
    assert "tags" not in row


def test_unreadable_images_and_unknown_tags_are_named_and_left_out(
    segmenter: Segmenter, tars: Path, tmp_path: Path
) -> None:
    with tarfile.open(tars / "001.tar", "a") as archive:
        add(archive, "torn.png", b"no picture")
        add(archive, "torn.json", b'{"tags": ["cat"]}')
        add(archive, "strange.png", b"no picture")
        add(archive, "strange.json", b'{"tags": ["kat"]}')
    summary = open_job(segmenter, tars, tmp_path / "out").write()
    assert summary.written == 4
    assert "001.tar: torn.png: cannot be read" in summary.unreadable[0]
    assert "unknown tag 'kat'. Did you mean 'cat'?" in summary.unreadable[1]
    assert summary.masks.skipped == 2
    with pytest.raises(DataError, match="torn"):
        open_job(segmenter, tars, tmp_path / "strict", strict=True).write()
    assert not (tmp_path / "strict" / "001.tar").exists()


def test_only_paths_of_tar_files_and_folders_of_them_count(tars: Path, tmp_path: Path) -> None:
    assert tar_files([tars]) == [tars / "000.tar", tars / "001.tar"]
    assert tar_files([tars / "001.tar"]) == [tars / "001.tar"]
    assert tar_files([tmp_path / "image.png"]) == []
    assert tar_files([tars, tmp_path / "image.png"]) == []
    (tars / "image.png").write_bytes(b"")
    assert tar_files([tars]) == []
    (tmp_path / "empty").mkdir()
    assert tar_files([tmp_path / "empty"]) == []


def test_two_files_of_one_name_are_rejected(segmenter: Segmenter, tars: Path) -> None:
    with pytest.raises(DataError, match=r"2 tar files are named 000\.tar"):
        OpenTarJob(segmenter, tars, [tars / "000.tar", tars / "sub" / "000.tar"])
