import json
import math

import pytest

from tag2mask.errors import RunError
from tag2mask.training.best_metric import BestMetric
from tag2mask.training.validation import Evaluation


def make_metric(folder, *scores, metric="mIoU", reason=None):
    created = BestMetric(folder / "metrics.json", metric, reason)
    is_best = [created.add(Evaluation(step, score, {})) for step, score in scores]
    return created, is_best


def read(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_best_is_the_earliest_of_the_highest(tmp_path):
    metric, is_best = make_metric(tmp_path, (1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1))
    assert is_best == [True, True, False, False]
    assert metric.best.step == 2


def test_nan_is_best_only_while_there_is_no_number(tmp_path):
    metric, is_best = make_metric(tmp_path, (1, math.nan), (2, math.nan), (3, 0.0), (4, math.nan))
    assert is_best == [True, True, True, False]
    assert metric.best.step == 3


def test_file_names_the_best_step_and_the_reason(tmp_path):
    make_metric(tmp_path, (5, 0.2), (10, 0.4))[0].write(10, 10, 3.5)
    values = read(tmp_path)
    assert values["best"] == {"step": 10, "score": 0.4, "reason": "mIoU"}
    assert (values["finished"], values["seconds"], values["step"]) == (True, 3.5, 10)
    assert [entry["step"] for entry in values["history"]] == [5, 10]


def test_a_run_is_finished_only_when_its_last_step_is_scored(tmp_path):
    metric, _ = make_metric(tmp_path, (5, 0.2))
    metric.write(10, 10, 1.0)
    assert read(tmp_path)["finished"] is False


def test_without_held_out_images_the_last_step_is_the_best(tmp_path):
    metric, _ = make_metric(tmp_path, metric=None, reason="no images are held out")
    metric.write(10, 10, 1.0)
    values = read(tmp_path)
    assert values["best"]["step"] == 10
    assert values["best"]["reason"] == "best is last: no images are held out"
    assert values["finished"] is True


def test_a_reason_makes_the_last_step_the_best_whatever_the_scores(tmp_path):
    metric, is_best = make_metric(tmp_path, (5, 0.9), (10, 0.2), reason="run.best is last")
    assert is_best == [False, False]
    metric.write(10, 10, 1.0)
    assert read(tmp_path)["best"]["step"] == 10
    assert read(tmp_path)["metric"] == "mIoU"


def test_restore_drops_later_steps(tmp_path):
    make_metric(tmp_path, (5, math.nan), (10, 0.3), (15, 0.9))[0].write(15, 20, 1.0)
    again, _ = make_metric(tmp_path)
    again.restore(10)
    assert (again.has_step(5), again.has_step(10), again.has_step(15)) == (True, True, False)
    assert again.best.score == 0.3


def test_restore_without_a_file_has_no_best(tmp_path):
    metric, _ = make_metric(tmp_path)
    metric.restore(3)
    assert metric.best is None


@pytest.mark.parametrize("text", ["", "[]", '{"history": [{"step": "2"}]}', '{"history": 3}', "{"])
def test_damaged_metrics_are_one_line_that_says_what_to_do(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    metric = BestMetric(tmp_path / "metrics.json", "mIoU", None)
    with pytest.raises(RunError, match=r"metrics\.json: .*; remove it to go on without") as caught:
        metric.restore(3)
    assert len(caught.value.problems) == 1
