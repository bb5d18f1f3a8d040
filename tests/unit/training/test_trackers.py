"""Trackers with libraries in memory; the real ones: tests/formats/test_trackers.py."""

import math
from types import SimpleNamespace

import pytest

from tag2mask.errors import MissingExtraError, RunError
from tag2mask.training import trackers
from tag2mask.training.trackers import Trackers, require_trackers


class Memory:
    """A tracker that records its calls, or fails at one of them."""

    def __init__(self, fails=""):
        self.calls, self._fails = [], fails

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
    """Trackers by name, built instead of accelerate's."""
    found = {"wandb": Memory(), "mlflow": Memory()}
    monkeypatch.setattr(trackers, "_build", lambda name, run: found[name])
    return found


def test_every_tracker_gets_settings_and_finite_values(built):
    opened = Trackers(["wandb", "mlflow"], "run", {"optim": {"lr": 0.1}, "scales": [1, 2]}, print)
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


def test_a_tracker_that_does_not_start_gives_one_line_and_ends_the_others(built):
    built["mlflow"] = Memory(fails="start")
    expected = r"^run\.trackers: mlflow does not start \(no network\); set MLFLOW_TRACKING_URI"
    with pytest.raises(RunError, match=expected):
        Trackers(["wandb", "mlflow"], "run", {}, print)
    assert built["wandb"].calls[-1] == ("finish",)


@pytest.mark.parametrize("call", ["log", "finish"])
def test_a_tracker_that_fails_later_is_left_out(built, call):
    lines = []
    built["wandb"] = Memory(fails=call)
    opened = Trackers(["wandb", "mlflow"], "run", {}, lines.append)
    for step in (1, 2):
        opened.log({"loss": 1.0}, step)
    opened.close()
    assert lines == ["warning: wandb is left out from now on (no network)"]
    assert [one[0] for one in built["mlflow"].calls] == [
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
