"""Count clean exits of trainings in two processes, and restarts after a killed one.

Each try starts `torchrun` with two processes that train a few steps on generated images. With
--kill, one of the two processes is killed after its first saved state; torchrun must restart both,
and the run must end as if nothing had happened.

Run: python benchmarks/distributed_exits.py [--tries 20] [--kill] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from row import command, run_as_command
from tag2mask.errors import RunError

STEPS = 6
WORDS = (
    "rml/synthetic_tiny",
    "data.count=4",
    "data.val_count=2",
    f"optim.steps={STEPS}",
    "optim.batch_size=2",
    "method.warmup=1",
    "method.warmup_rule=fixed",
    "run.save_every=2",
    "run.workers=0",
    "run.samples=0",
    "run.estimate=false",
)


def start(out: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start one training in two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = ["--nproc-per-node=2", "--max-restarts=1", "-m", "tag2mask", "train", *WORDS]
    with log.open("wb") as file:
        return subprocess.Popen(
            [*torchrun, *words, "--out", str(out)],
            env={"OMP_NUM_THREADS": "1", **os.environ},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def kill_one(launcher: subprocess.Popen[bytes], out: Path) -> None:
    """Kill one of the two processes as soon as there is a saved state."""
    while not (out / "state" / "state.safetensors").is_file():
        if launcher.poll() is not None:
            raise RunError(f"{out}: ended before the first saved state")
        time.sleep(0.05)
    path = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    children = path.read_text(encoding="utf-8").split()
    trainings = [
        one for one in children if b"tag2mask" in Path(f"/proc/{one}/cmdline").read_bytes()
    ]
    os.kill(int(trainings[-1]), signal.SIGKILL)


def try_once(folder: Path, *, kill: bool) -> str | None:
    """Train once; return what went wrong, or None."""
    out, log = folder / "run", folder / "log.txt"
    launcher = start(out, log)
    if kill:
        kill_one(launcher, out)
    code = launcher.wait()
    if code:
        return f"exit code {code}: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}"
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    if not metrics["finished"]:
        return "exit code 0, but the run is not finished"
    resumed = '"event": "resume"' in (out / "log.jsonl").read_text(encoding="utf-8")
    return "the killed process was not restarted" if kill and not resumed else None


def main() -> None:
    """Read the command line, try, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--kill", action="store_true", help="kill one process of each try")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    problems = []
    for number in range(args.tries):
        with TemporaryDirectory() as folder:
            problem = try_once(Path(folder), kill=args.kill)
        print(f"try {number + 1}: {problem or 'clean'}", flush=True)
        problems += [problem] if problem else []
    clean = args.tries - len(problems)
    print(f"{clean} of {args.tries} exits are clean")
    if args.json is not None:
        record = {"command": command(), "tries": args.tries, "clean": clean, "kill": args.kill}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if problems:
        raise RunError(f"{len(problems)} of {args.tries} tries failed; the first: {problems[0]}")


if __name__ == "__main__":
    run_as_command(main)
