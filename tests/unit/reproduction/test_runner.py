"""What the runner keeps on disk; tests/integration/test_reproduce.py runs complete tables."""

import json

import pytest

from tag2mask.errors import RunError
from tag2mask.reproduction import runner as runner_module
from tag2mask.reproduction.plan import plan_rows
from tag2mask.reproduction.runner import MAX_THRESHOLD_IMAGES, Runner, list_name, machine
from tag2mask.reproduction.table import Table
from tag2mask.training.run_folder import RunFolder

TABLE = Table.model_validate(
    {
        "title": "T",
        "source": "S",
        "data": "D",
        "runs": {"synthetic": {"recipe": "cam/synthetic_stages", "stage": "seg"}},
        "rows": {"a": {}},
    }
)


EMPTY = {"classes": [], "images": {}, "scores": {}}


@pytest.fixture
def plan():
    return plan_rows(TABLE, "synthetic", ["a"], [1], {})[0]


@pytest.fixture
def without_network(monkeypatch):
    """Stages that only leave their metrics; the scores are empty."""
    stages = []

    def train(recipe, run, *, stage, **others):
        stages.append(stage)
        folder = RunFolder(run / stage)
        folder.root.mkdir(parents=True, exist_ok=True)
        (run / "recipe.yaml").touch()
        folder.metrics.write_text(json.dumps({"seconds": 90.0}))

    monkeypatch.setattr(runner_module, "train", train)
    monkeypatch.setattr(Runner, "_score", lambda self, plan, run: dict(EMPTY))
    return stages


def test_seconds_of_stages_add_up(plan, without_network, tmp_path):
    scores = Runner(tmp_path).finish(plan)
    assert without_network == ["cam", "seed", "seg"]
    assert scores["seconds"]["training"] == 180.0
    assert 0 < scores["seconds"]["labeling"] < 5
    assert scores["machine"] == machine()
    assert scores["command"].startswith("tag2mask train cam/synthetic_stages ")
    assert Runner(tmp_path).read_scores(plan) == scores


def test_an_interrupted_label_stage_keeps_its_time(plan, without_network, monkeypatch, tmp_path):
    runner = Runner(tmp_path)
    train = runner_module.train

    def stopped(recipe, run, *, stage, **others):
        if stage == "seed":
            raise RunError("stopped")
        train(recipe, run, stage=stage)

    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "train", stopped)
        with pytest.raises(RunError, match="stopped"):
            runner.finish(plan)
    run = runner.run_folder(plan)
    spent = json.loads(run.with_name(f"{run.name}.seconds.json").read_text())
    spent["seed"] = 1000.0
    run.with_name(f"{run.name}.seconds.json").write_text(json.dumps(spent))
    assert 1000 < runner.finish(plan)["seconds"]["labeling"] < 1005
    assert without_network == ["cam", "cam", "seed", "seg"]


def test_finished_rows_do_not_run_again(plan, without_network, tmp_path):
    lines = []
    runner = Runner(tmp_path, notify=lines.append)
    first = runner.finish(plan)
    del without_network[:]
    assert runner.finish(plan) == first
    assert without_network == []
    assert lines[-1] == "finished, skipped"
    limited = Runner(tmp_path, limit=5)
    assert limited.read_scores(plan) is None  # other images, other scores


def test_lists_that_choose_thresholds_have_a_limit_of_their_own(tmp_path):
    assert Runner(tmp_path)._limit_of("val", "val") is None
    assert Runner(tmp_path)._limit_of("train", "val") == MAX_THRESHOLD_IMAGES
    assert Runner(tmp_path, 100)._limit_of("train", "val") == 100
    assert Runner(tmp_path, 100)._limit_of("val", "val") == 100


def test_lists_have_the_names_that_a_reader_knows():
    assert [list_name(name) for name in ("train.txt", "devval")] == ["train", "devval"]
