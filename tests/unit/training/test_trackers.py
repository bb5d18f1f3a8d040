"""Trackers with libraries in memory; the real ones: tests/trackers."""

import json
import math
from types import SimpleNamespace

import pytest

from tag2mask.errors import MissingExtraError, RunError
from tag2mask.training import trackers
from tag2mask.training.trackers import Trackers, require_trackers


class Memory:
    """A tracker that records its calls, or fails at one of them."""

    def __init__(self, fails="", run_id="1"):
        self.calls, self._fails = [], fails
        self.tracker = SimpleNamespace(id=run_id, info=SimpleNamespace(run_id=run_id))

    def _record(self, name, *values):
        if name == self._fails:
            raise OSError(f"no network\nin {name}")
        self.calls.append((name, *values))

    def start(self):
        self._record("start")

    def store_init_configuration(self, values):
        self._record("settings", values)

    def log(self, values, step=None):
        self._record("log", values, step)

    def finish(self):
        self._record("finish")


@pytest.fixture
def built(monkeypatch):
    """Trackers by name, or by name and the run they continue, built instead of accelerate's."""
    found = {"wandb": Memory(run_id="w1"), "mlflow": Memory(run_id="m1")}

    def build(name, run_name, run_id):
        return found[name if run_id is None else (name, run_id)]

    monkeypatch.setattr(trackers, "_build", build)
    return found


def open_trackers(folder, names=("wandb", "mlflow"), settings=None, warn=print):
    return Trackers(names, "run", settings or {}, warn, folder / "state" / "trackers.json")


def calls_of(tracker):
    return [one[0] for one in tracker.calls]


def test_every_tracker_gets_settings_and_finite_values(built, tmp_path):
    opened = open_trackers(tmp_path, settings={"optim": {"lr": 0.1}, "scales": [1, 2]})
    opened.log({"loss": 1.5, "bad": math.nan}, 7)
    opened.close()
    opened.close()
    expected = [
        ("start",),
        ("settings", {"optim.lr": 0.1, "scales": "1, 2"}),
        ("log", {"loss": 1.5}, 7),
        ("finish",),
    ]
    assert built["wandb"].calls == built["mlflow"].calls == expected


def test_a_second_start_continues_the_stored_runs(built, tmp_path):
    open_trackers(tmp_path).close()
    stored = tmp_path / "state" / "trackers.json"
    assert json.loads(stored.read_text()) == {"wandb": "w1", "mlflow": "m1"}
    built["mlflow", "m1"] = Memory(run_id="m1")
    open_trackers(tmp_path, ["mlflow"]).close()
    assert calls_of(built["mlflow", "m1"]) == ["start", "finish"]  # it has the settings already
    assert json.loads(stored.read_text()) == {"wandb": "w1", "mlflow": "m1"}


def test_a_run_that_the_tracker_has_lost_gives_a_new_one_and_a_warning(built, tmp_path):
    lines = []
    open_trackers(tmp_path, ["mlflow"]).close()
    built["mlflow", "m1"], built["mlflow"] = Memory("start"), Memory(run_id="m2")
    open_trackers(tmp_path, ["mlflow"], warn=lines.append).close()
    assert calls_of(built["mlflow"]) == ["start", "settings", "finish"]
    assert json.loads((tmp_path / "state" / "trackers.json").read_text()) == {"mlflow": "m2"}
    assert lines == [
        "warning: mlflow cannot continue its run m1 (no network); a new one starts there"
    ]


def test_a_damaged_list_of_runs_names_its_cure(built, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "trackers.json").write_text('{"wandb": 3}')
    with pytest.raises(RunError, match=r"trackers\.json: wandb: .*remove it to start new runs"):
        open_trackers(tmp_path)
    assert built["wandb"].calls == []


def test_without_trackers_nothing_is_stored(tmp_path):
    open_trackers(tmp_path, ()).close()
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_does_not_start_gives_one_line_and_ends_the_others(built, tmp_path):
    built["mlflow"] = Memory(fails="start")
    expected = r"^run\.trackers: mlflow does not start \(no network\); set MLFLOW_TRACKING_URI"
    with pytest.raises(RunError, match=expected):
        open_trackers(tmp_path)
    assert built["wandb"].calls[-1] == ("finish",)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("call", ["log", "finish"])
def test_a_tracker_that_fails_later_is_left_out(built, tmp_path, call):
    lines = []
    built["wandb"] = Memory(fails=call)
    opened = open_trackers(tmp_path, warn=lines.append)
    for step in (1, 2):
        opened.log({"loss": 1.0}, step)
    opened.close()
    assert lines == ["warning: wandb is left out from now on (no network)"]
    assert calls_of(built["mlflow"]) == [
        "start",
        "settings",
        "log",
        "log",
        "finish",
    ]


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tag2mask\[trackio\]'"):
        require_trackers(["trackio"])
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: SimpleNamespace())
    require_trackers(["wandb", "trackio", "mlflow"])
