from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tag2mask.data.base import Source
from tag2mask.errors import RunError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.shards import Shard
from tag2mask.inference.writer import (
    MaskWriter,
    WriteSummary,
    label_dataset,
    predict_images,
)
from tag2mask.io.image_inputs import named_images

NAMES = [f"image{number}" for number in range(11)]


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file of a mask folder but the records of its shards."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name: content for name, content in found.items() if not name.startswith("shards/")}


@pytest.fixture
def label(segmenter: Segmenter, source: Source) -> Callable[[Path, Shard | None], WriteSummary]:
    """Return a function that labels the painted images, or a shard of them."""
    settings = segmenter.settings("tags")

    def run(out: Path, shard: Shard | None = None) -> WriteSummary:
        writer = MaskWriter(out, segmenter.class_names, "tags", settings, shard=shard)
        return label_dataset(segmenter, source, writer)

    return run


@pytest.mark.parametrize("count", [1, 2, 3, 11, 40])
def test_every_image_is_in_exactly_one_shard(count: int) -> None:
    parts = [Shard(number, count).select(NAMES) for number in range(count)]
    assert sorted(name for part in parts for name in part) == sorted(NAMES)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("number", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_does_not_exist_is_rejected(number: int, count: int) -> None:
    with pytest.raises(RunError, match="numbered from 0"):
        Shard(number, count)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_merged_shards_equal_one_process_byte_for_byte(
    label: Callable[..., WriteSummary], tmp_path: Path, order: tuple[int, ...]
) -> None:
    label(tmp_path / "one")
    summaries = [label(tmp_path / "parts", Shard(number, 3)) for number in order]
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "one")
    assert [len(one.unfinished) for one in summaries] == [2, 1, 0]
    assert summaries[-1].masks.images == 4  # of the complete folder
    total = json.loads((tmp_path / "parts" / "shards" / "manifest.json").read_text())
    assert (total["shards"], total["images"], total["masks"], total["unreadable"]) == (3, 4, 4, 0)


def test_a_manifest_counts_images_and_has_the_hash_of_every_mask(
    label: Callable[..., WriteSummary], tmp_path: Path, source: Source
) -> None:
    label(tmp_path, Shard(1, 2))
    records = tmp_path / "shards" / "00001-of-00002"
    manifest = json.loads((records / "manifest.json").read_text())
    assert (manifest["shard"], manifest["shards"]) == (1, 2)
    assert (manifest["images"], manifest["masks"]) == (2, 2)
    lines = dict(
        line.split("  ")[::-1] for line in (records / "masks.sha256").read_text().splitlines()
    )
    assert list(lines) == [f"{name}.png" for name in source.names[1::2]]
    for name, digest in lines.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert not (tmp_path / "scores.jsonl").exists()  # shard 0 is missing


def test_a_repeated_shard_changes_nothing_and_an_interrupted_one_fills_its_gap(
    label: Callable[..., WriteSummary], tmp_path: Path, source: Source
) -> None:
    for number in (0, 1):
        label(tmp_path, Shard(number, 2))
    before = files_of(tmp_path)
    again = label(tmp_path, Shard(0, 2))
    assert (again.written, again.already, again.unfinished) == (0, 2, ())
    (tmp_path / "shards" / "00000-of-00002" / "manifest.json").unlink()
    (tmp_path / f"{source.names[0]}.png").unlink()
    again = label(tmp_path, Shard(0, 2))
    assert (again.written, again.already) == (1, 1)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("first", [None, Shard(0, 2)])
def test_masks_of_an_earlier_division_keep_their_rows(
    label: Callable[..., WriteSummary], tmp_path: Path, first: Shard | None, source: Source
) -> None:
    label(tmp_path / "one")
    label(tmp_path / "parts", first)
    if first is None:
        (tmp_path / "parts" / f"{source.names[3]}.png").unlink()
    for number in range(3):
        label(tmp_path / "parts", Shard(number, 3))
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "one")


def test_one_process_finishes_what_a_shard_began(
    label: Callable[..., WriteSummary], tmp_path: Path
) -> None:
    label(tmp_path / "one")
    label(tmp_path / "parts", Shard(0, 2))
    label(tmp_path / "parts")
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "one")


def test_added_images_make_the_other_shards_unfinished(
    segmenter: Segmenter, image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    folder = image_folder()
    out = tmp_path / "out"

    def predict(number: int) -> tuple[int, ...]:
        writer = MaskWriter(out, segmenter.class_names, "classifier", {}, shard=Shard(number, 2))
        return predict_images(segmenter, named_images([folder]), writer).unfinished

    assert [predict(0), predict(1)] == [(1,), ()]
    (folder / "zz.png").write_bytes((folder / "none.png").read_bytes())
    (folder / "zzz.png").write_bytes((folder / "none.png").read_bytes())
    assert [predict(0), predict(1)] == [(1,), ()]
    total = json.loads((out / "shards" / "manifest.json").read_text())
    assert total["images"] == 6


def test_unreadable_images_are_recorded_by_their_shard_and_merged(
    segmenter: Segmenter, image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    folder = image_folder()
    (folder / "lane1" / "0.jpg").write_bytes(b"no picture")
    for out, shard in (("one", None), *(("parts", Shard(number, 5)) for number in range(5))):
        writer = MaskWriter(tmp_path / out, segmenter.class_names, "classifier", {}, shard=shard)
        predict_images(segmenter, named_images([folder]), writer)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "one")
    total = json.loads((tmp_path / "parts" / "shards" / "manifest.json").read_text())
    assert (total["masks"], total["unreadable"]) == (4, 1)


def test_a_shard_without_images_is_finished_at_once(
    label: Callable[..., WriteSummary], tmp_path: Path
) -> None:
    assert label(tmp_path, Shard(6, 7)).written == 0
    assert (tmp_path / "shards" / "00006-of-00007" / "manifest.json").is_file()


def test_other_settings_are_refused_by_every_shard(segmenter: Segmenter, tmp_path: Path) -> None:
    for number, background in ((0, 0.4), (1, 0.4)):
        MaskWriter(tmp_path, ("cat",), "tags", {"background": background}, shard=Shard(number, 2))
    with pytest.raises(RunError, match=r"background: 0\.4 before, 0\.5 now"):
        MaskWriter(tmp_path, ("cat",), "tags", {"background": 0.5}, shard=Shard(1, 2))
