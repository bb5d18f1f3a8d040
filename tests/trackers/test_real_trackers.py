"""What the real libraries have stored, read back without a network; see `make test-trackers`."""

import io
import json
import sqlite3
import sys
import time

import pytest
from accelerate import PartialState
from rich.console import Console

from tag2mask.training.logging import MetricLogger
from tag2mask.training.trackers import require_trackers

pytestmark = [pytest.mark.trackers, pytest.mark.filterwarnings("default")]
SETTINGS = {"optim": {"lr": 0.25}, "data": {"classes": ["cat", "cow"], "root": None}}


@pytest.fixture(autouse=True)
def process():
    """The state of accelerate that a training run has."""
    state = PartialState()
    yield
    state._reset_state()


def log_two_steps(folder, name):
    """Log as training does; return what was printed."""
    run, text = folder / "my run", io.StringIO()
    run.mkdir()
    require_trackers([name])
    with MetricLogger(
        run / "log.jsonl",
        tensorboard=run / "tensorboard",
        steps=10,
        start=0,
        is_main=True,
        console=Console(file=text),
        trackers=[name],
        settings=SETTINGS,
    ) as logger:
        for step in (5, 10):
            logger.write_scalars({"loss/total": 1 / step, "bad": float("nan")}, step)
    return text.getvalue()


def test_mlflow_stores_every_step(tmp_path, monkeypatch):
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert log_two_steps(tmp_path, "mlflow") == ""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("tag2mask")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss/total")
    assert [(one.step, one.value) for one in history] == [(5, 0.2), (10, 0.1)]
    assert (run.info.run_name, run.info.status) == ("my run", "FINISHED")
    assert run.data.params["optim.lr"] == "0.25"
    assert run.data.params["data.classes"] == "cat, cow"
    assert "bad" not in run.data.metrics


def test_wandb_stores_an_offline_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert log_two_steps(tmp_path, "wandb") == ""
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    while b"loss/total" not in stored.read_bytes():  # a process of wandb writes the file
        assert time.monotonic() < deadline
        time.sleep(0.1)
    data = stored.read_bytes()
    for word in (b"loss/total", b"optim.lr", b"cat, cow", b"my run", b"tag2mask"):
        assert word in data
    assert b"bad" not in data


def test_trackio_stores_every_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in [one for one in sys.modules if one.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads its folder once
    assert log_two_steps(tmp_path, "trackio") == ""
    (base_file,) = (tmp_path / "trackio").glob("tag2mask*.db")
    with sqlite3.connect(base_file) as base:
        rows = base.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [(name, step) for name, step, _ in rows] == [("my run", 5), ("my run", 10)]
    stored = [json.loads(metrics) for _, _, metrics in rows]
    assert [one["loss/total"] for one in stored] == [0.2, 0.1]
    assert "bad" not in stored[0]
