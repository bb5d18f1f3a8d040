import json
import math

from tag2mask.training.best_metric import BestMetric
from tag2mask.training.validation import Evaluation


def board(folder, *scores, metric="mIoU", reason=None):
    made = BestMetric(folder / "metrics.json", metric, reason)
    verdicts = [made.add(Evaluation(step, score, {})) for step, score in scores]
    return made, verdicts


def read(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_best_is_the_earliest_of_the_highest(tmp_path):
    made, verdicts = board(tmp_path, (1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1))
    assert verdicts == [True, True, False, False]
    assert made.best.step == 2


def test_nan_is_best_only_while_there_is_no_number(tmp_path):
    made, verdicts = board(tmp_path, (1, math.nan), (2, math.nan), (3, 0.0), (4, math.nan))
    assert verdicts == [True, True, True, False]
    assert made.best.step == 3


def test_file_tells_the_best_and_why(tmp_path):
    board(tmp_path, (5, 0.2), (10, 0.4))[0].write(10, 10, 3.5)
    values = read(tmp_path)
    assert values["best"] == {"step": 10, "score": 0.4, "why": "mIoU"}
    assert (values["finished"], values["seconds"], values["step"]) == (True, 3.5, 10)
    assert [seen["step"] for seen in values["history"]] == [5, 10]


def test_a_run_is_finished_only_when_its_last_step_is_scored(tmp_path):
    made, _ = board(tmp_path, (5, 0.2))
    made.write(10, 10, 1.0)
    assert read(tmp_path)["finished"] is False


def test_without_held_out_images_best_is_last_and_says_so(tmp_path):
    made, _ = board(tmp_path, metric=None, reason="no images are held out")
    made.write(10, 10, 1.0)
    values = read(tmp_path)
    assert values["best"]["step"] == 10
    assert values["best"]["why"] == "best is last: no images are held out"
    assert values["finished"] is True


def test_restore_forgets_the_steps_to_come(tmp_path):
    board(tmp_path, (5, math.nan), (10, 0.3), (15, 0.9))[0].write(15, 20, 1.0)
    again, _ = board(tmp_path)
    again.restore(10)
    assert (again.has(5), again.has(10), again.has(15)) == (True, True, False)
    assert again.best.score == 0.3


def test_restore_of_a_run_that_wrote_no_scores_yet(tmp_path):
    made, _ = board(tmp_path)
    made.restore(3)
    assert made.best is None
