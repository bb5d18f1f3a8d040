"""The files beside masks: written, read back, and damaged ones rejected."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tag2mask.errors import DataError, RunError
from tag2mask.io.mask_folder import (
    append_scores,
    class_areas,
    describe_classes,
    describe_image,
    read_class_names,
    read_classes,
    read_scores,
    read_skipped,
    score_row,
    tidy_scores,
    write_classes,
    write_skipped,
)
from tag2mask.types import Prediction, Uncertainty


def score_rows(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_class_names_are_read_and_damaged_files_are_rejected(tmp_path: Path) -> None:
    assert read_class_names(tmp_path) == ()
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"classes": ["cat", "dog"], "ignore": 255}), encoding="utf-8-sig")
    assert read_class_names(tmp_path) == ("cat", "dog")
    for text in ("{", "[]", '{"classes": [1]}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"classes\.json"):
            read_class_names(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"classes\.json: cannot be read .* names the class of each mask value"),
        ("{", r"classes\.json: is not valid JSON"),
        ("[]", r'classes\.json: is not a JSON object; .*\{"classes"'),
        ("{}", r"classes\.json: classes: Field required"),
        ('{"classes": []}', r"classes\.json: classes: List should have at least 1 item"),
        ('{"classes": [1]}', r"classes\.json: classes\.0: Input should be a valid string"),
        ('{"classes": ["a", "a"]}', r"classes\.json: classes: 'a' occurs twice"),
        ('{"classes": ["a\\nb"]}', r"classes\.json: classes: .* is no name of a class"),
    ],
)
def test_a_missing_or_invalid_classes_file_is_rejected_in_one_line(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_classes(tmp_path)
    assert "\n" not in str(caught.value)


def test_written_classes_are_read_back(tmp_path: Path) -> None:
    settings = {"scales": (1.0, 0.5), "refiner": None}
    described = describe_classes(("Kühe", "dog"), "tags", settings)
    assert described == {
        "classes": ["Kühe", "dog"],
        "background": 0,
        "ignore": 255,
        "class_source": "tags",
        "settings": {"scales": [1.0, 0.5], "refiner": None},
        "palette": [[0, 0, 0], [128, 0, 0], [0, 128, 0]],
    }
    write_classes(tmp_path / "new", described)
    assert read_classes(tmp_path / "new") == described
    assert "Kühe" in (tmp_path / "new" / "classes.json").read_text(encoding="utf-8")


def test_row_of_an_image_has_scores_areas_and_uncertainty_in_six_digits() -> None:
    mask = np.array([[0, 2, 2], [255, 2, 0]], dtype=np.uint8)
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    made = Prediction(mask, ("cat", "dog"), {"cat": 1 / 3, "dog": 1.0}, "tags", image)
    row = {"name": "lane/é", "scores": {"cat": 0.333333, "dog": 1.0}, "areas": {"dog": 0.5}}
    assert score_row("lane/é", made) == row
    assert score_row("lane/é", made, ()) == {**row, "tags": []}
    uncertain = replace(made, uncertainty=Uncertainty(2 / 3, {"views": 1 / 3, "tags": 1.0}))
    assert score_row("lane/é", uncertain) == {
        **row,
        "uncertainty": 0.666667,
        "uncertainty_parts": {"views": 0.333333, "tags": 1.0},
    }


def test_areas_are_shares_of_all_pixels() -> None:
    mask = np.array([[0, 1, 1, 3], [255, 0, 0, 0]], dtype=np.uint8)
    assert class_areas(mask, ("cat", "cow", "dog")) == {"cat": 0.25, "dog": 0.125}


def test_a_row_names_the_image_relative_to_its_folder_and_its_size(tmp_path: Path) -> None:
    path = tmp_path / "photos" / "lane" / "a.JPG"
    described = describe_image("lane/a", path, (30, 40))
    assert described == {
        "width": 40,
        "height": 30,
        "image": "lane/a.JPG",
        "folder": (tmp_path / "photos").as_posix(),
    }
    assert describe_image("a", path, (1, 1))["folder"] == path.parent.as_posix()
    assert describe_image("generated", None, (1, 2)) == {"width": 2, "height": 1}
    append_scores(tmp_path, {"name": "lane/a", "scores": {"cat": 0.5}} | described)
    row = {"name": "lane/a", "scores": {"cat": 0.25}} | described
    append_scores(tmp_path, row)
    assert read_scores(tmp_path) == {"lane/a": row}  # the last one counts


def test_scores_that_cannot_be_written_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"scores\.jsonl: cannot be written"):
        append_scores(tmp_path / "missing", {"name": "a"})


def test_tidy_scores_drops_unfinished_repeated_and_torn_rows(tmp_path: Path) -> None:
    for value in (0.1, 0.2):
        append_scores(tmp_path, {"name": "é", "uncertainty": value})
    append_scores(tmp_path, {"name": "unfinished"})
    with (tmp_path / "scores.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "to')
    assert read_scores(tmp_path).keys() == {"é", "unfinished"}
    tidy_scores(tmp_path, lambda name: name == "é")
    assert score_rows(tmp_path) == [{"name": "é", "uncertainty": 0.2}]
    assert read_scores(tmp_path) == {"é": {"name": "é", "uncertainty": 0.2}}
    tidy_scores(tmp_path / "new", lambda name: True)
    assert score_rows(tmp_path / "new") == []
    assert read_scores(tmp_path / "none") == {}


def test_skipped_images_are_recorded_and_an_empty_list_removes_the_file(tmp_path: Path) -> None:
    assert read_skipped(tmp_path) == frozenset()
    write_skipped(tmp_path, ["a", "lane/é"])
    assert read_skipped(tmp_path) == {"a", "lane/é"}
    write_skipped(tmp_path, [])
    assert read_skipped(tmp_path) == frozenset()
    assert not (tmp_path / "skipped.json").exists()
