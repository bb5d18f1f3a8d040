"""Break what users' machines break, hundreds of times, and compare with what must hold.

Run: python -m tests.chaos.run [NAME ...] [--short] [--seed N] [--json FILE] [--folder DIR]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.outcome import Trial

from tag2mask.checkpoint import versions
from tag2mask.errors import did_you_mean
from tag2mask.io.files import write_text

FOLDER = Path(__file__).parent
PACKAGE = __name__.rpartition(".")[0] if __name__ != "__main__" else "tests.chaos"


def trial_names() -> list[str]:
    """Name the trials: files of this folder with a function `run(trial)`."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py"))}
    return [name for name, text in texts.items() if "\ndef run(trial: Trial)" in text]


def run_trials(
    names: Sequence[str], *, short: bool, seed: int, folder: Path, path: Path | None
) -> bool:
    """Run trials one after the other; return whether everything held.

    Args:
        names: Trials; all if empty.
        short: A few trials of each.
        seed: Of the random moments.
        folder: For what is written; new folders in it.
        path: JSON file that receives one entry per trial; its other entries are kept.
    """
    held = True
    for name in names or trial_names():
        module = importlib.import_module(f"{PACKAGE}.{name}")
        print(f"{name}: {module.__doc__.splitlines()[0]}", flush=True)
        inside = Path(tempfile.mkdtemp(prefix=f"{name}_", dir=folder))
        started = time.monotonic()
        outcome = module.run(
            Trial(short, seed, inside, lambda line: print(f"  {line}", flush=True))
        )
        seconds = round(time.monotonic() - started, 1)
        held = held and not outcome.problems
        for problem in outcome.problems:
            print(f"  problem: {problem}", flush=True)
        print(f"  {outcome.tried} tried, {len(outcome.problems)} problems, {seconds} s", flush=True)
        if path is not None:
            _add(path, name, outcome.values(), short=short, seed=seed, seconds=seconds)
    return held


def _add(path: Path, name: str, values: Any, **about: Any) -> None:
    """Add the record of one trial to a results file."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    short = " --short" if about["short"] else ""
    command = f"python -m tests.chaos.run {name}{short} --seed {about['seed']}"
    machine = {"cpus": os.cpu_count(), "platform": platform.platform()}
    found[name] = {"command": command, **values, **about, **versions(), "machine": machine}
    write_text(path, json.dumps(found, indent=1) + "\n")


def main() -> int:
    """Read the command line and try what it names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(trial_names()))
    parser.add_argument("--short", action="store_true", help="a few repetitions of each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    parser.add_argument("--folder", type=Path, default=None, metavar="DIR")
    args = parser.parse_args()
    for name in args.names:
        if name not in trial_names():
            known = f"Known: {', '.join(trial_names())}"
            print(
                f"unknown trial '{name}'.{did_you_mean(name, trial_names())} {known}",
                file=sys.stderr,
            )
            return 2
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        held = run_trials(
            args.names, short=args.short, seed=args.seed, folder=Path(folder), path=args.json
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
