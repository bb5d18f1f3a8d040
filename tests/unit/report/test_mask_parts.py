import os
from pathlib import Path

import pytest

from tag2mask.io.mask_folder import append_scores, describe_classes, write_classes, write_skipped
from tag2mask.report.mask_parts import find_masks, mask_tiles, read_masks


def write_masks(folder: Path, time: float = 1.0) -> Path:
    write_classes(folder, describe_classes(("cat", "cow"), "tags", {"background": 0.45}))
    rows = {"a": ({"cat": 0.2}, ["cat"]), "b": ({}, ["cow"]), "c": ({}, []), "d": ({}, ["cat"])}
    for position, (name, (areas, tags)) in enumerate(rows.items()):
        row = {"name": name, "areas": areas, "tags": tags, "uncertainty": position / 10}
        append_scores(folder, row)
    write_skipped(folder, ["torn"])
    os.utime(folder / "classes.json", (time, time))
    return folder


def test_newest_masks_of_the_run_are_found(tmp_path: Path) -> None:
    assert find_masks(tmp_path) is None
    older = write_masks(tmp_path / "masks", time=1)
    newer = write_masks(tmp_path / "newer", time=2)
    assert find_masks(tmp_path) == newer
    assert find_masks(tmp_path, older) == older


def test_masks_of_a_run_with_stages_lie_beside_its_network(tmp_path: Path) -> None:
    labels = write_masks(tmp_path / "label")
    (tmp_path / "seg").mkdir()
    assert find_masks(tmp_path / "seg") is None
    (tmp_path / "recipe.yaml").write_text("stages")
    assert find_masks(tmp_path / "seg") == labels


def test_masks_beside_the_run_are_found_by_their_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_classes(tmp_path / "mine", describe_classes(("cat",), "tags", {"sha256": "ab"}))
    write_classes(tmp_path / "other", describe_classes(("cat",), "tags", {"sha256": "cd"}))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "classes.json").write_text("{")
    assert find_masks(run, sha256="ab") == tmp_path / "mine"
    assert find_masks(run, sha256="ef") is None
    monkeypatch.chdir(run)
    assert find_masks(Path(), sha256="ab") == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    assert find_masks(Path("run"), sha256="ab") == Path("mine")
    assert find_masks(run) is None


def test_tiles_count_by_hand(tmp_path: Path) -> None:
    masks, missing = read_masks(write_masks(tmp_path / "masks"))
    assert missing == ()
    assert masks is not None
    assert [tile[:2] for tile in mask_tiles(masks)] == [
        ("uncertainty", "0.15"),
        ("empty masks", "2"),
        ("full-frame masks", "0"),
    ]
    assert mask_tiles(masks)[1].note == "66.7 % of 3 masks"  # c has no tags
    assert masks.most_uncertain[0] == ("d", 0.3)


def test_what_cannot_be_summarized_is_one_line(tmp_path: Path) -> None:
    assert read_masks(None)[0] is None
    write_classes(tmp_path, describe_classes(("cat",), "tags", {}))
    assert "has no masks with scores" in read_masks(tmp_path)[1][0]
    (tmp_path / "classes.json").write_text("{")
    assert "is not valid JSON" in read_masks(tmp_path)[1][0]
    assert mask_tiles(None) == ()
