"""Two processes on one folder: the second is refused with one line, the first is not disturbed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.chaos.children import LONGEST_S, finish, last_line, start
from tests.chaos.digest import differences, digest
from tests.chaos.kills import TRAIN, workloads
from tests.chaos.outcome import Outcome, Trial

from tag2mask.data.synthetic import SyntheticConfig, write_scenes
from tag2mask.io.files import LOCK


def run(trial: Trial) -> Outcome:
    """Start each command twice at a time on one folder."""
    outcome = Outcome(facts={"refused": 0})
    trained, scenes = trial.folder / "trained", trial.folder / "scenes"
    write_scenes(SyntheticConfig(count=60, val_count=1, size_px=64), scenes)
    code = finish(["train", "cam/synthetic_tiny", "--out", trained, *TRAIN.split()],
                  trial.folder / "log")  # fmt: skip
    assert code == 0, last_line(trial.folder / "log")
    for workload in workloads(trained, scenes):
        if workload.name in ("train with a loader", "ray"):
            continue
        out = trial.folder / workload.name / "run"
        code = finish(workload.words(out), out.with_name("log"))
        assert code == 0, last_line(out.with_name("log"))
        expected = digest(out)
        for number in range(trial.times(7, 1)):
            shutil.rmtree(out)
            problem = _start_twice(workload.words, out)
            found = [problem] if problem else differences(digest(out), expected)
            outcome.problems += [f"{workload.name} {number}: {one}" for one in found]
            outcome.facts["refused"] += not problem
            outcome.tried += 1
    return outcome


def _start_twice(words, out: Path) -> str:
    """Start a command, and the same one while it works; return what went wrong."""
    first = start(words(out), out.with_name(f"{out.name}.first.log"))
    deadline = time.monotonic() + LONGEST_S
    while not (out / LOCK).is_file():
        if first.exitcode is not None or time.monotonic() > deadline:
            return f"the first one took no lock, exit code {first.exitcode}"
        time.sleep(0.002)
    log = out.with_name(f"{out.name}.second.log")
    code = finish(words(out), log)
    first.join(LONGEST_S)
    lines = [line for line in log.read_text("utf-8").splitlines() if line.startswith("error: ")]
    if code != 2 or len(lines) != 1 or "works in this folder" not in lines[0]:
        return f"the second one ended with exit code {code}: {last_line(log)}"
    return "" if first.exitcode == 0 else f"the first one ended with exit code {first.exitcode}"
