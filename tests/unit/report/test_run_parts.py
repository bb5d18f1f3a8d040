import json
from pathlib import Path
from typing import Any

import pytest

from tag2mask.report.run_parts import read_run


def test_complete_run_has_no_missing_parts(run: Path) -> None:
    parts = read_run(run)
    assert parts.missing == ()
    assert parts.recipe is not None
    assert parts.recipe.data.classes == ("cat", "cow")


def test_interrupted_last_log_line_is_left_out(run: Path) -> None:
    assert [record["step"] for record in read_run(run).log] == [0, *range(10, 110, 10), 100]


def test_scores_come_from_files_and_from_best_and_last_evaluation(run: Path) -> None:
    mious = {title: score["miou"] for title, score in read_run(run).scores.items()}
    expected = {
        "train.json": 0.456,
        "best while training (step 50)": 0.31,
        "last while training (step 100)": 0.3,
    }
    assert mious == expected


def test_equal_scores_appear_once_with_all_their_titles(run: Path) -> None:
    score = json.loads((run / "train.json").read_text())
    score["settings"]["split"] = "train"  # a setting that the other file does not name
    (run / "again.json").write_text(json.dumps(score))
    assert next(iter(read_run(run).scores)) == "again.json, train.json"
    assert len(read_run(run).scores) == 3


@pytest.mark.parametrize(
    "change", [{"class_source": "classifier"}, {"settings": {"flip": False}}, {"images": 13}]
)
def test_scores_that_differ_in_any_way_stay_apart(run: Path, change: dict[str, Any]) -> None:
    score = json.loads((run / "train.json").read_text())
    (run / "again.json").write_text(json.dumps(score | change))
    assert list(read_run(run).scores)[:2] == ["again.json", "train.json"]


def test_only_strips_of_the_last_step_are_listed(run: Path) -> None:
    assert [path.stem for path in read_run(run).strips] == ["step000100_00_a", "step000100_01_b"]


def test_each_missing_part_is_listed(run: Path) -> None:
    for path in [
        *run.glob("*.json"),
        *run.glob("samples/*"),
        run / "log.jsonl",
        run / "recipe.yaml",
    ]:
        path.unlink()
    parts = read_run(run)
    missing = "\n".join((*parts.missing, *parts.no_scores))
    for part in ("recipe.yaml", "log.jsonl", "metrics.json", "IoU per class"):
        assert part in missing


def test_missing_scores_come_with_their_reason(run: Path) -> None:
    (run / "train.json").unlink()
    (run / "metrics.json").write_text('{"best": {"reason": "best is last: no image is held out"}}')
    assert "no image is held out" in read_run(run).no_scores[0]


def test_unreadable_recipe_and_metrics_are_listed_as_missing(run: Path) -> None:
    (run / "recipe.yaml").write_text("data: {name: nothing}")
    (run / "metrics.json").write_text("{")
    parts = read_run(run)
    assert parts.recipe is None
    assert len(parts.missing) == 2
