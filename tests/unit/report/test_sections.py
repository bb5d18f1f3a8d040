from pathlib import Path

import numpy as np
import pytest

from tag2mask import plugins
from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.report.network_parts import Picture
from tag2mask.report.run_parts import read_run
from tag2mask.report.sections import (
    class_table,
    curves,
    data_counts,
    duration,
    percent,
    picture_row,
    provenance,
)


def test_class_table_has_a_column_per_score_and_says_how_it_was_made(run: Path) -> None:
    table = class_table(read_run(run).scores)
    assert table.count("<th>train<br>") == 1
    assert "classes from tags" in table
    assert "classes from classifier" in table
    assert ">45.6</td>" in table  # cat and the mean
    assert "<td>-</td>" in table  # cow was neither there nor said
    assert "refiner par" in table
    assert "scales 1.0, 0.5" in table
    assert "flip yes" in table


def test_no_scores_no_table() -> None:
    assert class_table({}) == ""


def test_curves_show_losses_rates_scores_and_what_was_watched(run: Path) -> None:
    charts = curves(read_run(run).log)
    for title in ("Losses", "Held-out score", "Learning rates", "zero_maps", "Images per second"):
        assert f"<figcaption>{title}" in charts
    assert charts.count("<polyline") == 3 + 1 + 1 + 1  # the score has one point
    assert curves(()) == ""


def test_data_counts_come_from_the_data(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Three(Source):
        def __init__(self, config: DataConfig, split: str) -> None:
            self.class_names = ("cat", "cow")
            self.names = ("a", "b", "c")
            self.tags = np.array([[1, 0], [1, 1], [0, 0]], dtype=np.uint8)
            self.skipped = ("torn",)

        def __getitem__(self, index: int) -> None:  # type: ignore[override]
            raise AssertionError("no image needs decoding")

    recipe = read_run(run).recipe
    monkeypatch.setattr(plugins, "load", lambda package, name: Three)
    text = data_counts(recipe)
    assert "3 images to learn from, 1 of them without any class. 1 unreadable" in text
    assert "<th>cat</th><td>2</td>" in text


def test_data_that_is_gone_is_said_in_one_line(run: Path) -> None:
    assert "nowhere: no such folder" in data_counts(read_run(run).recipe)
    assert data_counts(None) == ""


def test_provenance_escapes_and_leaves_out_what_is_unknown(run: Path) -> None:
    text = provenance(read_run(run).log)
    assert "--out &lt;RUN&gt;" in text
    assert "torch 9.9" in text
    assert "<dd>7</dd>" in text
    assert "machine" not in text


def test_pictures_are_part_of_the_page() -> None:
    text = picture_row([Picture("a<b", b"\x89PNG\r"), Picture("c", b"\x89PNG\n")], "x & y")
    assert text.count('src="data:image/png;base64,iVBOR') == 2
    assert 'alt="a&lt;b"' in text
    assert "x &amp; y" in text
    assert picture_row([], "nothing to tell of") == ""


def test_numbers_are_written_as_people_read_them() -> None:
    assert percent(0.4567) == "45.7"
    assert percent(None) == "-"
    assert duration(59.6) == "1 min 00 s"
    assert duration(3725) == "1 h 02 min"
