"""Ctrl-C and SIGTERM to a process group: the exit code of the signal, one line, no process left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos.children import LONGEST_S, finish, last_line
from tests.chaos.exits import LAUNCH
from tests.chaos.kills import PIPELINE, TRAIN
from tests.chaos.outcome import Outcome, Trial

from tag2mask.data.synthetic import SyntheticConfig, write_scenes

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
NOISE = ("Traceback", "resource_tracker", "Warning", "died", "error:")
START_S = 2.0
"""Earliest signal: before, Python itself is still starting."""


def run(trial: Trial) -> Outcome:
    """Signal every command at random moments."""
    outcome = Outcome(facts={"signaled": 0, "launched": 0})
    trained, scenes = trial.folder / "trained", trial.folder / "scenes"
    write_scenes(SyntheticConfig(count=200, val_count=1, size_px=64), scenes)
    code = finish(["train", "cam/synthetic_tiny", "--out", trained, *TRAIN.split()],
                  trial.folder / "log")  # fmt: skip
    assert code == 0, last_line(trial.folder / "log")
    long = [*TRAIN.split(), "optim.steps=100000"]
    lines = [
        ["train", "cam/synthetic_tiny", *long, "run.workers=0"],
        ["train", "cam/synthetic_tiny", *long, "run.workers=2"],
        ["train", "cam/synthetic_stages", *PIPELINE.split(), "optim.steps=100000"],
        ["label", trained, scenes, "predict.scales=4.0,3.0"],
        ["label", trained, scenes, "predict.scales=4.0,3.0", "--workers", "2"],
        ["predict", trained, scenes / "images", "predict.scales=4.0,3.0", "--workers", "2"],
    ]
    dice = random.Random(trial.seed)
    for number in range(trial.times(5, 1) * len(lines)):
        words = [*map(str, lines[number % len(lines)]), "--out", str(trial.folder / str(number))]
        how = dice.choice(list(CODES))
        problem = _signal([sys.executable, "-m", "tag2mask", *words], how, dice, CODES[how])
        outcome.problems += [f"{how.name} to {' '.join(words)}: {problem}"] if problem else []
        outcome.facts["signaled"] += 1
        outcome.tried += 1
    for number in range(trial.times(6, 0)):
        out = trial.folder / f"launched_{number}"
        words = [sys.executable, *LAUNCH, "-m", "tag2mask", *map(str, lines[0]), "--out", str(out)]
        problem = _signal_launch(words, dice.choice(list(CODES)), out)
        outcome.problems += [f"torchrun: {problem}"] if problem else []
        outcome.facts["launched"] += 1
        outcome.tried += 1
    return outcome


def _popen(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell starts its background jobs deaf to SIGINT, and so their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _signal(words: list[str], how: signal.Signals, dice: random.Random, code: int) -> str:
    """Signal one command after a random time; return what went wrong."""
    with _popen(words) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(START_S + dice.uniform(0, 6))
        if process.returncode is not None:
            return f"ended by itself with exit code {process.returncode}"
        os.killpg(process.pid, how)
        _, printed = process.communicate(timeout=LONGEST_S)
    found = [word for word in NOISE if word in printed]
    if process.returncode != code or found:
        return f"exit code {process.returncode}, {found}: {printed.strip()[-300:]!r}"
    return "" if not _processes_of(process.pid) else "processes are left"


def _signal_launch(words: list[str], how: signal.Signals, out: Path) -> str:
    """Signal torchrun; its training must have saved its state."""
    with _popen(words) as process:
        deadline = time.monotonic() + LONGEST_S
        while not (out / "state" / "state.safetensors").is_file():
            if process.poll() is not None or time.monotonic() > deadline:
                return f"ended before the first save with exit code {process.returncode}"
            time.sleep(0.05)
        os.killpg(process.pid, how)
        _, printed = process.communicate(timeout=LONGEST_S)
    if printed.count("stopped at step") != 2 or "resource_tracker" in printed:
        return f"{how.name}: {printed.strip()[-300:]!r}"
    return ""


def _processes_of(session: int) -> list[int]:
    """Processes of a session that still run after a moment."""
    deadline = time.monotonic() + 20
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(path.parent.name))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
