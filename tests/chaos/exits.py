"""Training in two processes by `torchrun` ends without a crash at exit."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.chaos.children import LONGEST_S
from tests.chaos.kills import TRAIN
from tests.chaos.outcome import Outcome, Trial

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
CRASHES = ("Traceback", "terminate called", "SIGABRT", "resource_tracker", "Signal 6")


def run(trial: Trial) -> Outcome:
    """Train in two processes again and again."""
    outcome = Outcome(facts={"clean": 0})
    for number in range(trial.times(20, 1)):
        out = trial.folder / str(number)
        words = ["-m", "tag2mask", "train", "cam/synthetic_tiny", "--out", str(out), *TRAIN.split()]
        done = subprocess.run(
            [sys.executable, *LAUNCH, *words, "run.workers=0"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        crashes = [word for word in CRASHES if word in done.stderr]
        if done.returncode or crashes or not (out / "weights" / "last.safetensors").is_file():
            last = (done.stderr.strip().splitlines() or [""])[-1]
            outcome.problems.append(f"{number}: exit code {done.returncode}, {crashes}: {last}")
        else:
            outcome.facts["clean"] += 1
        outcome.tried += 1
    return outcome
