"""Signals end real commands in order: the exit code of the signal, one line, no process left.

Each signal goes to the whole process group, as from a terminal (Ctrl-C) or a scheduler.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tag2mask.checkpoint import save_weights
from tag2mask.config.recipe import load_recipe, parse_recipe
from tag2mask.data.synthetic import SyntheticConfig, write_scenes
from tag2mask.methods.build import build_method

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc"),
]
SLOWLY = "predict.scales=4.0,3.0,2.0"
"""Makes an image take long enough to be interrupted."""
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(SyntheticConfig(count=60, val_count=2, size_px=64), root)
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, scenes):
    values = {
        "data": {"name": "folder", "root": str(scenes), "crop_px": 32, "val_fraction": 0.1},
        "backbone": {"name": "tiny"},
        "method": {"name": "cam"},
        "optim": {"steps": 100_000, "batch_size": 2},
        "run": {"workers": 2, "log_every": 1, "evaluate_every": 0},
    }
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(parse_recipe(values, "test").to_yaml(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, recipe, scenes):
    """A run with random weights."""
    folder = tmp_path_factory.mktemp("run")
    tags = (scenes / "tags.csv").read_text("utf-8").splitlines()[1:]
    classes = sorted({tag for row in tags for tag in row.split(",")[1].split(";") if tag})
    values = load_recipe(str(recipe)).with_classes(classes)
    save_weights(folder / "weights" / "last.safetensors", build_method(values).state_dict(), values)
    return folder


def processes_of(session: int) -> list[int]:
    """Processes of a session, zombies left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def stop(words, how, is_busy, tmp_path) -> tuple[int, str]:
    """Start a command, signal its group once it is busy; return exit code and standard error."""
    errors = tmp_path / "stderr.txt"
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "tag2mask", *map(str, words)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
            # a shell starts its background jobs deaf to SIGINT, and so their children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        with process:
            deadline = time.monotonic() + 240
            while not is_busy(errors):
                assert process.poll() is None, errors.read_text("utf-8")
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.killpg(process.pid, how)
            code = process.wait(timeout=60)
    deadline = time.monotonic() + 20
    while (left := processes_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    return code, errors.read_text("utf-8")


@pytest.mark.parametrize("how", EXIT_CODES)
def test_a_stopped_training_saves_its_state_and_says_how_to_resume(recipe, tmp_path, how):
    folder = tmp_path / "run"
    code, printed = stop(
        ["train", recipe, "--out", folder],
        how,
        lambda errors: "step 3/" in errors.read_text("utf-8"),
        tmp_path,
    )
    assert code == EXIT_CODES[how], printed
    last = printed.splitlines()[-1]
    assert last.startswith("stopped at step ")
    assert last.endswith(f"resume with: tag2mask train --resume {folder}")
    assert (folder / "state" / "state.safetensors").is_file()
    for word in ("Traceback", "loader", "resource_tracker", "Warning", "error:"):
        assert word not in printed


@pytest.mark.parametrize("how", EXIT_CODES)
@pytest.mark.parametrize(
    ("command", "workers"), [("label", 1), ("predict", 1), ("predict", 2)], ids=str
)
def test_a_stopped_command_says_so_in_one_line(run, scenes, tmp_path, how, command, workers):
    out = tmp_path / "masks"
    words = [command, run, scenes if command == "label" else scenes / "images", SLOWLY]
    code, printed = stop(
        [*words, "--workers", workers, "--out", out],
        how,
        lambda errors: any(out.rglob("*.png")),
        tmp_path,
    )
    assert code == EXIT_CODES[how], printed
    assert printed == {signal.SIGINT: "interrupted\n", signal.SIGTERM: "terminated\n"}[how]
    written = list(out.rglob("*.png"))
    assert 0 < len(written) < 60
    assert not [*out.rglob("*.part"), *out.rglob(".lock*")]
