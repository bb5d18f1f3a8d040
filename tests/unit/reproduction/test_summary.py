import io

import pytest
import yaml
from rich.console import Console

from tag2mask.reproduction.plan import plan_rows
from tag2mask.reproduction.summary import group_results, markdown, record, rich_table
from tag2mask.reproduction.table import Table

TABLE = Table.model_validate(
    yaml.safe_load("""
title: Two networks
source: A paper, Table 1
data: VOC 2012 val
note: What a reader must know.
columns: [val, hours]
classes: [background, cat]
runs:
  synthetic:
    {recipe: cam/synthetic_tiny, masks: cam + refiner, split: val.txt, threshold_split: train}
rows:
  a: {name: First, paper: {val: 50.0, hours: 3.0}, iou: [80.0, 20.0], note: A note.}
  b: {name: Second, set: method.pooling=gmp}
  c: {name: Third, paper: {val: 61.9}, runs: {}}
""")
)
ROWS = list(TABLE.rows)
PLANS = plan_rows(TABLE, "synthetic", ROWS, [1, 2, 3], {})


def scores(miou, hours=1.0):
    """Scores with this mIoU for the refined CAM, and tenths less for the others."""
    kinds = {
        "cam": {"miou": miou - 0.1, "iou": [miou, miou - 0.2], "threshold": 0.3},
        "cam + refiner": {"miou": miou, "iou": [miou + 0.3, miou - 0.3], "threshold": 0.4},
    }
    seconds = {"training": 3600 * hours, "labeling": 360.0, "evaluation": 1440.0}
    by_list = {"val": {"tags": kinds}, "train": {"tags": {"cam": kinds["cam"]}}}
    return {
        "scores": by_list,
        "classes": ["cat"],
        "seconds": seconds,
        "machine": {"device": "cpu"},
    }


@pytest.fixture
def results():
    found = {("a", 1): scores(0.4), ("a", 2): scores(0.46), ("a", 3): scores(0.43, hours=4.0)}
    return group_results(PLANS, found)


def test_mean_difference_and_spread_are_those_of_the_seeds(results):
    row = record(TABLE, {"table": "t"}, ROWS, results)["rows"]["a"]
    assert row["ours"] == 43.0
    assert row["difference"] == -7.0
    assert row["spread"] == pytest.approx(6.0)
    assert row["hours"] == 2.5  # of 1.5, 1.5 and 4.5
    assert (row["split"], row["class_source"]) == ("val", "tags")
    assert list(row["seeds"]) == ["1", "2", "3"]


def test_one_seed_has_no_spread():
    results = group_results(PLANS, {("b", 2): scores(0.4)})
    row = record(TABLE, {}, ROWS, results)["rows"]["b"]
    assert (row["ours"], row["spread"], row["difference"]) == (40.0, None, None)


def test_rows_that_are_not_ours_or_not_finished_have_the_papers_number(results):
    rows = record(TABLE, {}, ROWS, results)["rows"]
    assert rows["c"] == {"name": "Third", "paper": {"val": 61.9}}
    assert rows["b"] == {"name": "Second", "paper": {}}
    text = markdown(TABLE, "Title", ROWS, results, "tag2mask reproduce t")
    assert "| Third | 61.9 | - | - | - | - | - | - | - | - | - |" in text


def test_markdown_has_every_number_and_the_command(results):
    text = markdown(TABLE, "Title", ROWS, results, "tag2mask reproduce t")
    assert "# Title" in text
    assert "What a reader must know." in text
    assert "- First: A note." in text
    assert "```bash\ntag2mask reproduce t\n```" in text
    line = "| First | 50.0 | 3.0 | 43.0 | -7.0 | 6.0 | 3 | 2.50 | cam + par | tags | val |"
    assert line in text
    assert "| First | cam | 33.0 | - | 33.0 | - |" in text  # val and train, tags and classifier
    assert "| First | 3 | 4.000 | 0.100 | 0.400 | cpu |" in text
    assert "| cat | 20.0 | 13.0 |" in text
    assert "| background | 80.0 | 73.0 |" in text


def test_a_table_without_results_shows_the_papers_classes():
    text = markdown(TABLE, "Title", ROWS, {}, "x")
    assert "| cat | 20.0 |" in text
    assert "All kinds" not in text


def test_the_terminal_table_fits_a_hundred_columns(results):
    console = Console(width=100, file=io.StringIO())
    console.print(rich_table(TABLE, "Title", ROWS, results))
    shown = console.file.getvalue()
    for word in ("First", "50.0", "43.0", "-7.0", "cam + par", "tags", "val"):
        assert word in shown


def test_the_kind_of_mask_names_the_rows_own_refiner():
    own = TABLE.model_copy(update={"rows": {"a": TABLE.rows["a"]}})
    own = own.model_validate({**own.model_dump(), "rows": {"a": {"inference": "refiner=pamr"}}})
    (plan,) = plan_rows(own, "synthetic", ["a"], [1], {})
    results = group_results([plan], {("a", 1): scores(0.4)})
    assert "| cam + pamr |" in markdown(own, "Title", ["a"], results, "x")
