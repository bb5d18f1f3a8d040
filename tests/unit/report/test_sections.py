from pathlib import Path

import numpy as np
import pytest

from tag2mask import plugins
from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.io.palette import css_color
from tag2mask.report.images import RunData
from tag2mask.report.run_parts import read_run
from tag2mask.report.sections import (
    DataCounts,
    class_table,
    data_counts,
    duration,
    percent,
    provenance,
    score_tiles,
    time_tiles,
)
from tag2mask.report.terms import WORDS


def test_headline_names_the_first_score_with_its_class_source(run: Path) -> None:
    parts = read_run(run)
    tiles = (*score_tiles(parts), *time_tiles(parts))
    assert [(tile.name, tile.value) for tile in tiles] == [
        ("average overlap", "45.6 %"),
        ("training time", "1 h 02 min"),
    ]
    assert tiles[0].note == "mIoU of train.json; classes from tags; 12 images"


def test_tag_precision_is_never_a_headline(run: Path) -> None:
    (run / "train.json").unlink()
    best = '{"step": 50, "score": 0.625, "reason": "mean average precision"}'
    (run / "metrics.json").write_text(f'{{"best": {best}, "history": []}}')
    parts = read_run(run)
    assert score_tiles(parts) == ()
    assert time_tiles(parts) == ()


def test_class_table_has_a_column_per_score_with_its_settings(run: Path) -> None:
    table = class_table(read_run(run).scores)
    assert table is not None
    assert table.columns[0].title == "train.json"
    sources = [column.class_source for column in table.columns]
    assert sources == ["classes from tags", *["classes from the classifier"] * 2]
    assert table.miou == (0.456, 0.31, 0.3)
    background, cat, cow = table.rows
    assert (background.name, background.iou) == ("background", (0.9, 0.9, 0.9))
    assert (cat.name, cat.iou, cat.color) == ("cat", (0.456, 0.31, 0.3), css_color(1))
    assert cow.iou == (None, None, None)  # neither in the masks nor in the truth
    assert table.columns[0].summary == "12 images, classes from tags"
    assert [(one.name, one.value) for one in table.columns[0].settings] == [
        ("scales", "1.0, 0.5"),
        ("flip", "yes"),
        ("background threshold", "0.45"),
        ("refiner", "par"),
    ]
    assert all(one.word in WORDS for one in table.columns[0].settings)


def test_no_scores_make_no_table() -> None:
    assert class_table({}) is None


def test_data_counts_come_from_the_data(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ThreeImages(Source):
        def __init__(self, config: DataConfig, split: str) -> None:
            self.class_names = ("cat", "cow")
            self.names = ("a", "b", "c")
            self.tags = np.array([[1, 0], [1, 1], [0, 0]], dtype=np.uint8)
            self.skipped = ("torn",)
            self.has_masks = False
            self.masked = (1,)

        def __getitem__(self, index: int) -> None:  # type: ignore[override]
            raise AssertionError("counting decodes no image")

    recipe = read_run(run).recipe
    monkeypatch.setattr(plugins, "load", lambda package, name: ThreeImages)
    classes = (("cat", 2), ("cow", 1))
    expected = DataCounts(images=3, negatives=1, skipped=1, masked=1, per_class=classes)
    assert data_counts(recipe, RunData(recipe)) == expected


def test_lost_data_gives_one_line(run: Path) -> None:
    recipe = read_run(run).recipe
    counts = data_counts(recipe, RunData(recipe))
    assert counts is not None
    assert "nowhere: no such folder" in counts.error
    assert data_counts(None, RunData(None)) is None


def test_provenance_leaves_out_what_is_unknown(run: Path) -> None:
    made, start = provenance(read_run(run))
    assert made[0].value == "CAM: plain class activation maps, the baseline of every paper (cam)"
    assert {one.name: one.value for one in start} == {
        "start": "at step 0",
        "command": "tag2mask train x --out <RUN>",
        "seed": "7",
        "versions": "torch 9.9",
        "license of the weights": "Apache-2.0",
    }


def test_numbers_have_readable_units() -> None:
    assert percent(0.4567) == "45.7"
    assert percent(0.4567, " %") == "45.7 %"
    assert percent(None) == "-"
    assert duration(59.6) == "1 min 00 s"
    assert duration(3725) == "1 h 02 min"
