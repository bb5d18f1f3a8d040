"""What the real libraries have stored, read back without a network; see `make test-trackers`."""

import io
import json
import sqlite3
import sys
import time

import pytest
from accelerate import PartialState
from rich.console import Console

from tag2mask.config.recipe import load_recipe, parse_recipe
from tag2mask.training.logging import MetricLogger
from tag2mask.training.trackers import require_trackers
from tag2mask.training.trainer import train

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


@pytest.fixture
def wandb_files(tmp_path, monkeypatch):
    """The folder in which wandb stores runs; it keeps its folder until it is torn down."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield tmp_path / "wandb"
    import wandb

    wandb.teardown()


def test_wandb_stores_an_offline_run(tmp_path, wandb_files):
    assert log_two_steps(tmp_path, "wandb") == ""
    (stored,) = wandb_files.glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    while b"loss/total" not in stored.read_bytes():  # a process of wandb writes the file
        assert time.monotonic() < deadline
        time.sleep(0.1)
    data = stored.read_bytes()
    for word in (b"loss/total", b"optim.lr", b"cat, cow", b"my run", b"tag2mask"):
        assert word in data
    assert b"bad" not in data


@pytest.fixture
def trackio_files(tmp_path, monkeypatch):
    """The folder in which trackio stores what it gets; it reads that folder once."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in [one for one in sys.modules if one.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "trackio"


def trackio_rows(folder):
    """Return (run, step, values) in the order of the steps."""
    (base_file,) = folder.glob("tag2mask*.db")
    with sqlite3.connect(base_file) as base:
        rows = base.execute(
            "select run_name, run_id, step, metrics from metrics order by step"
        ).fetchall()
    return [((name, run), step, json.loads(metrics)) for name, run, step, metrics in rows]


def test_trackio_stores_every_step(tmp_path, trackio_files):
    assert log_two_steps(tmp_path, "trackio") == ""
    rows = trackio_rows(trackio_files)
    assert [step for _, step, _ in rows] == [5, 10]
    ((run_name, _),) = {run for run, _, _ in rows}
    assert run_name.startswith("my run-")
    assert [values["loss/total"] for _, _, values in rows] == [0.2, 0.1]
    assert "bad" not in rows[0][2]


def train_in_two_parts(run, name):
    """Train 6 steps, stopped after 2 and resumed; each step is logged."""

    def cancel(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    recipe = load_recipe("cam/synthetic_tiny").plain()
    recipe["data"] |= {"size_px": 64, "crop_px": 64, "count": 8, "val_count": 2}
    recipe["optim"] |= {"steps": 6, "batch_size": 2}
    recipe["run"] |= {"trackers": [name], "log_every": 1, "save_every": 2, "workers": 0}
    parsed = parse_recipe(recipe, "test")
    with pytest.raises(KeyboardInterrupt):
        train(parsed, run, on_step=cancel)
    train(parsed, run, resume=True)


def test_a_resumed_run_continues_its_run_of_mlflow(tmp_path, monkeypatch):
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    train_in_two_parts(tmp_path / "run", "mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("tag2mask")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss/classification")
    assert [one.step for one in history] == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"


def test_a_resumed_run_continues_its_run_of_trackio(tmp_path, trackio_files):
    train_in_two_parts(tmp_path / "run", "trackio")
    rows = [row for row in trackio_rows(trackio_files) if "loss/classification" in row[2]]
    assert [step for _, step, _ in rows] == [1, 2, 3, 4, 5, 6]
    assert len({run for run, _, _ in rows}) == 1


def test_a_resumed_run_continues_its_run_of_wandb(tmp_path, wandb_files):
    train_in_two_parts(tmp_path / "run", "wandb")
    stored = sorted(wandb_files.glob("offline-run-*/run-*.wandb"))
    assert len({path.name for path in stored}) == 1  # `wandb sync` joins files of one id
