"""Recipes of synthetic scenes: the crash test, the demo and the demo's baseline."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tag2mask.cli.main import main
from tag2mask.config.recipe import load_recipe
from tag2mask.data.synthetic import SyntheticConfig, write_scenes

GOAL = 0.60
MARGIN = 0.10


def logged_steps(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    return [line["step"] for line in lines if "losses" in line]


def train_until_first_save_and_kill(run: Path) -> None:
    """Train in a new process and kill it, like a crash, once a state is on the disk."""
    command = [sys.executable, "-m", "tag2mask", "train", "rml/synthetic_chaos", "--out", str(run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not (run / "state" / "state.safetensors").is_file():
            assert process.poll() is None, "training ended before its first saved state"
            assert time.monotonic() < deadline, "no state was saved in five minutes"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_chaos_recipe_resumes_after_a_kill_and_labels(tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    train_until_first_save_and_kill(run)
    before = logged_steps(run)
    assert before[-1] < 60
    assert main(["train", "--resume", str(run)]) == 0
    assert logged_steps(run) == list(range(5, 61, 5))
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    assert metrics["step"] == 60
    write_scenes(SyntheticConfig(count=2, val_count=1, size_px=64), data)
    assert main(["label", str(run), str(data), "--out", str(tmp_path / "masks")]) == 0
    assert len(list((tmp_path / "masks").glob("*.png"))) == 3


def test_chaos_recipe_uses_every_loss(tmp_path):
    line = ["train", "rml/synthetic_chaos", "--out", str(tmp_path / "run")]
    short = ["optim.steps=2", "method.warmup=0", "run.log_every=1"]
    assert main([*line, *short, "run.workers=0", "run.evaluate_every=0"]) == 0
    log = (tmp_path / "run" / "log.jsonl").read_text("utf-8").splitlines()
    losses = next(json.loads(row)["losses"] for row in log if '"losses"' in row)
    assert set(losses) == {"classification", "ciml", "mfml", "apml"}
    assert all(value > 0 for value in losses.values())


def test_the_baseline_of_the_demo_differs_only_in_its_losses():
    rml, cam = load_recipe("rml/synthetic_tiny"), load_recipe("cam/synthetic_tiny")
    assert rml.model_dump(exclude={"method"}) == cam.model_dump(exclude={"method"})
    assert rml.method.pooling == cam.method.pooling


def test_the_demo_does_not_evaluate_on_held_out_scenes_during_training():
    """Otherwise `best` weights would be chosen on the same masks that the demo is scored on."""
    assert load_recipe("rml/synthetic_tiny").run.evaluate_every == 0


@pytest.mark.long
def test_the_demo_reaches_its_goal_and_leads_the_baseline(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "demo_lead.py"
    results = tmp_path / "lead.json"
    subprocess.run(
        [sys.executable, script, str(tmp_path / "runs"), "--json", str(results)], check=True
    )
    scores = json.loads(results.read_text("utf-8"))
    assert scores["demo"]["refined"] >= GOAL
    assert scores["lead"]["refined"] >= MARGIN
    assert scores["lead"]["raw"] >= MARGIN
