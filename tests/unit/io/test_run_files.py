import json
from pathlib import Path

import pytest

from tag2mask.errors import RunError
from tag2mask.io.run_files import is_score, read_log, read_metrics

SCORE = {"class_names": ["cat"], "iou": [0.5, None], "miou": 0.5, "images": 3}


def test_metrics_are_returned_as_written(tmp_path: Path) -> None:
    values = {"step": 3, "history": [{"step": 3, "score": None, "detail": SCORE}], "more": [1]}
    (tmp_path / "metrics.json").write_text(json.dumps(values))
    assert read_metrics(tmp_path / "metrics.json") == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": "3"}, "step: Input should be a valid integer"),
        ({"history": [{"score": 1.0}]}, r"history\.0\.step: Field required"),
        ({"history": None}, "history: Input should be a valid list"),
        ({"best": 3}, "best: Input should be"),
        ({"seconds": -1}, "seconds: Input should be greater"),
    ],
)
def test_damaged_metrics_are_one_line_with_advice(
    tmp_path: Path, values: object, message: str
) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match=rf"{message}.*; remove it to go on without"):
        read_metrics(tmp_path / "metrics.json")


def test_every_record_of_a_log_has_a_step_and_others_are_skipped(tmp_path: Path) -> None:
    lines = ['{"event": "start"}', '{"step": -1}', '{"step": 2, "losses": {"a": null}}', '{"st']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert read_log(tmp_path / "log.jsonl") == (
        {"event": "start", "step": 0},
        {"step": 2, "losses": {"a": None}},
    )


def test_scores_need_a_number_for_each_class() -> None:
    assert is_score(SCORE)
    assert not is_score({**SCORE, "iou": [0.5]})
    assert not is_score({**SCORE, "images": None})
    assert not is_score([])
