import pytest
import yaml

from tag2mask.errors import RecipeError
from tag2mask.reproduction.table import Table, available_tables, load_table

SMALL = """
title: A table
source: A paper, Table 1
data: VOC 2012 val
runs:
  animals:
    {recipe: cam/synthetic_tiny, set: optim.steps=5, split: val, threshold_split: train}
  voc: {split: val.txt, threshold_split: train.txt}
rows:
  base: {paper: 50.3}
  more: {name: + more, paper: 58.8, set: method.pooling=gmp, masks: cam + refiner}
  other: {paper: 62.0, runs: {}}
  on_voc: {paper: 64, runs: {voc: {recipe: cam/synthetic_tiny, class_source: classifier}}}
"""


def table(text=SMALL):
    return Table.model_validate(yaml.safe_load(text))


def written(tmp_path, text):
    path = tmp_path / "table.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_row_adds_its_changes_to_those_of_the_table():
    settings = table().settings("more", "animals")
    assert settings.recipe == "cam/synthetic_tiny"
    assert settings.set == {"optim.steps": "5", "method.pooling": "gmp"}
    assert (settings.masks, settings.split) == ("cam + refiner", "val")
    assert table().settings("base", "animals").masks == "cam"


def test_rows_without_a_recipe_have_the_papers_number_only():
    assert table().settings("other", "animals") is None
    assert table().settings("base", "voc") is None
    assert table().settings("on_voc", "animals") is None
    assert table().settings("base", "coco") is None
    settings = table().settings("on_voc", "voc")
    assert (settings.split, settings.class_source) == ("val.txt", "classifier")


def test_data_sets_are_those_on_which_a_row_runs():
    assert table().data_sets() == ["animals", "voc"]
    without = SMALL.replace(
        "runs: {voc: {recipe: cam/synthetic_tiny, class_source: classifier}}", "runs: {}"
    )
    assert table(without).data_sets() == ["animals"]


def test_one_number_belongs_to_the_first_column():
    assert table().rows["base"].paper == {"mIoU": 50.3}


def test_rows_are_selected_in_the_order_of_the_table():
    assert table().select_rows(["more", "base"]) == ["base", "more"]
    assert len(table().select_rows(None)) == 4
    with pytest.raises(
        RecipeError, match=r"unknown row 'bose'\. Did you mean 'base'\? Known: base"
    ):
        table().select_rows(["bose"])


def test_bundled_tables_are_found_by_name():
    assert "rml_1" in available_tables()
    assert load_table("rml_1").rows["ciml"].paper == {"mIoU": 58.8}
    with pytest.raises(RecipeError, match=r"unknown table 'rml1'\. Did you mean 'rml_1'"):
        load_table("rml1")


MISTAKES = [
    ("rows: {a: {paper: {val: 1}}}", "'val' is none of the columns mIoU"),
    ("rows: {a: {iou: [1, 2]}}\nclasses: [x]", "has 2 numbers for 1 classes"),
    ("rows: {a: {masks: cams}}\nruns: {voc: {recipe: r}}", "unknown masks 'cams'. Did you mean"),
    (
        "rows: {a: {}}\nruns: {voc: {recipe: r, split: val, threshold_split: val}}",
        "chooses its threshold on the reported list",
    ),
    ("rows: {a: {papers: 3}}", "unknown key 'rows.a.papers'. Did you mean 'paper'"),
    ("rows: {a: {set: method.x}}", "'method.x' is not KEY=VALUE"),
    ("row: {}", "table.yaml: rows: is missing"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_in_a_table_is_one_line_with_its_path(tmp_path, text, message):
    head = "title: T\nsource: S\ndata: D\n"
    with pytest.raises(RecipeError) as caught:
        load_table(written(tmp_path, head + text))
    assert message in str(caught.value)


def test_a_missing_file_is_rejected_with_its_path(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        load_table(str(tmp_path / "none.yaml"))
