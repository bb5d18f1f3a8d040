"""`kill -9` at random moments: the same command continues, and ends as if nothing had happened."""

from __future__ import annotations

import importlib.util
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.chaos.children import KILLED, finish, last_line, start
from tests.chaos.digest import differences, digest
from tests.chaos.outcome import Outcome, Trial

from tag2mask.data.synthetic import SyntheticConfig, write_scenes

KILLS_PER_RUN = 5
TRAIN = """data.size_px=64 data.crop_px=64 data.count=8 data.val_count=2 backbone.width=8
optim.steps=30 optim.batch_size=2 run.save_every=3 run.evaluate_every=10 run.samples=1
run.log_every=1 run.estimate=false"""
PIPELINE = """data.size_px=64 data.crop_px=64 data.count=6 data.val_count=2 backbone.width=8
optim.steps=6 optim.batch_size=2 run.workers=0 run.save_every=2 run.samples=0 run.estimate=false
predict.scales=1.0 stages.seg.method.decoder_width=8"""


class Workload(NamedTuple):
    """A command that can be repeated until it is done. A new one joins `workloads`."""

    name: str
    words: Callable[[Path], Sequence[object]]
    """Output folder -> the command line that starts or continues it."""
    kills: tuple[int, int] = (30, 2)
    """In the full and in the short form."""


def workloads(trained: Path, scenes: Path) -> list[Workload]:
    """Return the commands that are killed.

    Args:
        trained: A finished run.
        scenes: Tagged images.
    """

    def train(recipe: str, settings: str) -> Callable[[Path], Sequence[object]]:
        def words(out: Path) -> Sequence[object]:
            if (out / "recipe.yaml").is_file():
                return ["train", "--resume", out]
            return ["train", recipe, "--out", out, *settings.split()]

        return words

    found = [
        Workload("train", train("cam/synthetic_tiny", f"{TRAIN} run.workers=0")),
        Workload("train with a loader", train("cam/synthetic_tiny", f"{TRAIN} run.workers=1")),
        Workload("label", lambda out: ["label", trained, scenes, "--out", out]),
        Workload("pipeline", train("cam/synthetic_stages", PIPELINE)),
    ]
    if importlib.util.find_spec("ray") is not None:

        def on_ray(out: Path) -> Sequence[object]:
            return ["label", trained, scenes, "--out", out, "--engine", "ray", "--workers", 2]

        found.append(Workload("ray", on_ray, (10, 1)))
    return found


def run(trial: Trial) -> Outcome:
    """Kill every command until it has been killed often enough."""
    outcome = Outcome(facts={"kills": {}, "runs": {}})
    trained, scenes = trial.folder / "trained", trial.folder / "scenes"
    write_scenes(SyntheticConfig(count=24, val_count=1, size_px=64), scenes)
    log = trial.folder / "log"
    code = finish(["train", "cam/synthetic_tiny", "--out", trained, *TRAIN.split()], log)
    assert code == 0, last_line(log)
    for workload in workloads(trained, scenes):
        _kill_often(workload, trial, outcome)
    return outcome


def _kill_often(workload: Workload, trial: Trial, outcome: Outcome) -> None:
    """Kill one command in run after run; every run must end as the undisturbed one."""
    folder = trial.folder / workload.name.replace(" ", "_")
    dice = random.Random(f"{trial.seed} {workload.name}")
    out = folder / "run"  # always the same, because recipes and fingerprints contain it
    started = time.monotonic()
    code = finish(workload.words(out), folder / "run.log")
    assert code == 0, f"{workload.name}: {last_line(folder / 'run.log')}"
    duration = time.monotonic() - started
    expected = digest(out)
    wanted, kills, runs = trial.times(*workload.kills), 0, 0
    while kills < wanted:
        shutil.rmtree(out)
        killed, problem = _kill_until_done(workload, out, dice, duration, wanted - kills)
        found = [problem] if problem else differences(digest(out), expected)
        outcome.problems += [f"{workload.name}, run {runs}: {one}" for one in found]
        kills, runs = kills + killed, runs + 1
        if problem:
            break
    outcome.tried += kills
    outcome.facts["kills"][workload.name] = kills
    outcome.facts["runs"][workload.name] = runs
    trial.notify(f"{workload.name}: {kills} kills in {runs} runs of {duration:.1f} s")


def _kill_until_done(
    workload: Workload, out: Path, dice: random.Random, duration: float, wanted: int
) -> tuple[int, str]:
    """Start, kill and continue one run until it is done; return kills and what went wrong."""
    kills, log = 0, out.with_name(f"{out.name}.log")
    while True:
        process = start(workload.words(out), log)
        if kills < min(KILLS_PER_RUN, wanted):
            process.join(dice.uniform(0, duration))
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += 1
                if process.exitcode == KILLED:
                    continue
        process.join()
        if process.exitcode == 0:
            return kills, ""
        return kills, f"exit code {process.exitcode}: {last_line(log)}"
