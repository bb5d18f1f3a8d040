"""Train and score a queue of experiments on VOC-Animals-6, several at a time on one GPU.

Every experiment is one process of `tag2mask train`, then one of `benchmarks/score_run.py`: masks
of `train` with classes from tags and thresholds from `devval`, masks of `devval` with classes from
the classifier and thresholds from `train`; raw and refined. A result is appended to `--out` as one
JSON line as soon as it exists. No experiment starts that cannot finish in time, and what still runs
at the end is stopped and recorded.

If the images of the data folder are smaller than the original ones (see `pack.py`), scores differ
from those of the other tables; every line says so.

Run: python benchmarks/gpu/animals.py benchmarks/gpu/queue.yaml --data gpu_data --runs RUNS
    --out animals.jsonl [--jobs 6] [--seconds 500] [--weights-dir DIR] [--check]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

import yaml

REPOSITORY = Path(__file__).parents[2]
SCORE = Path("benchmarks", "score_run.py")
MARGIN = 1.1
"""Factor on the expected time of an experiment."""
GRACE_SECONDS = 8.0
"""Time that stopped processes have to save and leave."""
POLL_SECONDS = 0.2
FACTS = "facts.json"
"""What `pack.py` says about the images."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Job(NamedTuple):
    """One network of the queue."""

    name: str
    seed: int
    recipe: str
    words: tuple[str, ...]
    """KEY=VALUE words of the command line."""
    stage: str | None
    steps: int
    seconds: float
    """Expected time of training and scoring, until one such experiment has finished."""
    weights: bool
    """Whether the weights of the first seed are kept."""
    long_side_px: int | None
    """Long side of the images that the network scores."""

    @property
    def label(self) -> str:
        """Name and seed, as a file name."""
        return f"{self.name}_seed{self.seed}".replace(" ", "_").replace("+", "plus")


class Active:
    """A running experiment: training first, then scoring."""

    def __init__(self, job: Job, args: argparse.Namespace) -> None:
        self.job = job
        self.facts = json.loads((args.data / FACTS).read_text(encoding="utf-8"))
        self.limit: int | None = args.limit
        self.folder: Path = args.runs / job.label
        self.run = self.folder / (job.stage or "")
        self.scores: Path = args.runs / f"{job.label}.json"
        self.output: Path = args.runs / f"{job.label}.txt"
        self.seconds: dict[str, float] = {}
        self.phase = "train"
        self.commands = {"train": train_command(job, self.folder), "score": self._score(args)}
        self.begin = time.monotonic()
        self.process = self._start()

    def _score(self, args: argparse.Namespace) -> list[str]:
        long_side = self.job.long_side_px
        size = [] if long_side is None else [f"predict.long_side_px={long_side}"]
        root, scores = str(args.data / "voc"), str(self.scores)
        limit = [] if args.limit is None else ["--limit", str(args.limit)]
        return [str(SCORE), str(self.run), "--root", root, "--json", scores, *size, *limit]

    def _start(self) -> subprocess.Popen[bytes]:
        self._since = time.monotonic()
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *self.commands[self.phase]],
                cwd=REPOSITORY,
                env=os.environ | ONE_THREAD,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this script, which stops them
            )

    def advance(self) -> Literal["running", "trained", "over"]:
        """Start scoring when training has ended; return what has changed."""
        if self.process.poll() is None:
            return "running"
        self.seconds[self.phase] = round(time.monotonic() - self._since, 1)
        if self.process.returncode or self.phase == "score":
            return "over"
        self.phase = "score"
        self.process = self._start()
        return "trained"

    def step(self) -> int:
        """Return the last logged step."""
        steps = [record["step"] for record in read_log(self.run / "log.jsonl") if "loss" in record]
        return steps[-1] if steps else 0

    def record(self, status: str) -> dict[str, Any]:
        """Describe the experiment for the results."""
        job = self.job
        record = {
            "name": job.name,
            "seed": job.seed,
            "status": status,
            "images": self.facts,
            "network_px": job.long_side_px,
            "limit": self.limit,
            "steps": job.steps,
            "seconds": self.seconds,
            "commands": [shlex.join(["python", *words]) for words in self.commands.values()],
        }
        if status == "done":
            record |= read_scores(self.scores)
        else:
            record |= {"phase": self.phase, "step": self.step(), "output": last_lines(self.output)}
        curve = [line for line in read_log(self.run / "log.jsonl") if "loss" in line]
        kept = ("step", "losses", "monitor", "images_per_s", "peak_memory_mib")
        return record | {"log": [{key: line[key] for key in kept} for line in curve]}


def train_command(job: Job, folder: Path) -> list[str]:
    """Return the arguments of Python that train a job."""
    stage = ["--stage", job.stage] if job.stage else []
    return ["-m", "tag2mask", "train", job.recipe, *job.words, "--out", str(folder), *stage]


def read_queue(path: Path, data: Path, workers: int) -> list[Job]:
    """Expand the groups of a queue to jobs: all runs of a group with one seed, then the next seed.

    `{data}` in a word stands for the data folder.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    jobs = []
    for group in content["groups"]:
        for seed in group["seeds"]:
            for run in group["runs"]:
                words = (
                    f"data.root={data / 'voc'}",
                    f"optim.steps={group['steps']}",
                    f"run.seed={seed}",
                    f"run.workers={workers}",
                    *content["set"],
                    *(word.replace("{data}", str(data)) for word in run.get("set", ())),
                )
                keeps = bool(run.get("weights")) and seed == group["seeds"][0]
                expected = float(run.get("seconds", group["seconds"]))
                stage, steps, side = run.get("stage"), group["steps"], content.get("long_side_px")
                jobs.append(
                    Job(
                        run["name"], seed, run["recipe"], words, stage, steps, expected, keeps, side
                    )
                )
    if len({job.label for job in jobs}) != len(jobs):
        raise SystemExit(f"{path}: two experiments have the same name and seed")
    return jobs


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Read the complete lines of a run's log."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # a line that is being written
            continue


def read_scores(path: Path) -> dict[str, Any]:
    """Return both tables that are reported: by class source, one entry per kind of mask."""
    (entry,) = json.loads(path.read_text(encoding="utf-8")).values()
    wanted = {"tags": "train", "classifier": "devval"}
    return {
        f"{table['reported_on']}, classes from {table['class_source']}": table["rows"]
        for table in entry["tables"]
        if wanted[table["class_source"]] == table["reported_on"]
    }


def last_lines(path: Path, count: int = 12) -> list[str]:
    """Return the end of a text file."""
    lines = (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    )
    return lines[-count:]


class Queue:
    """Starts jobs while they fit into the time that is left."""

    def __init__(self, jobs: Sequence[Job], args: argparse.Namespace) -> None:
        self.waiting = list(jobs)
        self.active: list[Active] = []
        self.args = args
        self.begin = time.monotonic()
        self.deadline = self.begin + args.seconds - GRACE_SECONDS
        self.observed: dict[tuple[str, int], float] = {}
        self.kept = 0
        self.stopping = False

    def run(self) -> None:
        """Run until nothing is left to start and nothing runs, or until the time is over."""
        while not self.stopping and time.monotonic() < self.deadline:
            self._start_fitting()
            if not self.active:
                break
            time.sleep(POLL_SECONDS)
            for one in list(self.active):
                change = one.advance()
                if change == "trained":
                    self._keep_weights(one)  # now: there may be no time for the scores
                elif change == "over":
                    self.active.remove(one)
                    self._finish(one)
        self._stop()

    def expected(self, job: Job) -> float:
        """Estimate the seconds of a job: as a finished one of its name, or as the queue says."""
        return MARGIN * self.observed.get((job.name, job.steps), job.seconds)

    def _start_fitting(self) -> None:
        for job in list(self.waiting):
            if len(self.active) >= self.args.jobs:
                return
            left = self.deadline - time.monotonic()
            if self.expected(job) > left:
                continue
            self.waiting.remove(job)
            self._say(f"start {job.label} ({self.expected(job):.0f} s expected, {left:.0f} s left)")
            self.active.append(Active(job, self.args))

    def _finish(self, one: Active) -> None:
        job = one.job
        status = "failed" if one.process.returncode else "done"
        record = one.record(status)
        self._append(record)
        if status == "failed":
            self._say(f"FAILED {job.label}: " + " | ".join(record["output"][-3:]))
            return
        self.observed[job.name, job.steps] = sum(one.seconds.values())
        self._say(f"done {job.label} {one.seconds} " + brief(record))

    def _keep_weights(self, one: Active) -> None:
        job = one.job
        if job.weights and self.args.weights_dir and self.kept < self.args.max_weights:
            self.kept += 1
            save_half(
                one.run / "weights" / "last.safetensors",
                self.args.weights_dir / f"{job.label}.safetensors",
            )

    def _stop(self) -> None:
        """Stop what still runs and record it, and name what never started."""
        for one in self.active:
            os.killpg(one.process.pid, signal.SIGTERM)
        end = time.monotonic() + GRACE_SECONDS - 1
        for one in self.active:
            try:
                one.process.wait(timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(one.process.pid, signal.SIGKILL)
            self._append(one.record("stopped"))
            self._say(f"stopped {one.job.label} while it had to {one.phase}, step {one.step()}")
        if self.waiting:
            self._say("not started: " + ", ".join(job.label for job in self.waiting))

    def _append(self, record: dict[str, Any]) -> None:
        with self.args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.begin:5.0f} s] {text}", flush=True)

    def request_stop(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: stop cleanly."""
        self.stopping = True


def brief(record: dict[str, Any]) -> str:
    """Return the mIoU of every kind of mask of one result in a line."""
    parts = []
    for table, rows in record.items():
        if ", classes from " in table:
            scores = ", ".join(f"{kind} {row['miou']:.3f}" for kind, row in rows.items())
            parts.append(f"{table}: {scores}")
    return "; ".join(parts)


def save_half(source: Path, target: Path) -> None:
    """Copy weights with matrices and kernels in float16; norms and statistics keep float32."""
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(source, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
        metadata = file.metadata()
    half = {
        name: value.astype(np.float16) if value.ndim > 1 and value.dtype == np.float32 else value
        for name, value in tensors.items()
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, target, metadata)


def print_summary(path: Path) -> None:
    """Print mean and spread (largest minus smallest) over seeds for every name and kind of mask."""
    scores: dict[tuple[str, str, str], list[float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for table, rows in record.items():
            if ", classes from " in table:
                for kind, row in rows.items():
                    scores.setdefault((table, record["name"], kind), []).append(row["miou"])
    for (table, name, kind), values in sorted(scores.items()):
        spread = max(values) - min(values)
        mean = statistics.mean(values)
        print(f"{table:36s} {name:28s} {kind:18s} {mean:.4f} spread {spread:.4f} n {len(values)}")


def check(jobs: Sequence[Job]) -> None:
    """Read the recipe of every job with its changes; print the problems and exit if there are."""
    from tag2mask.config.overrides import apply_overrides, parse_overrides
    from tag2mask.config.recipe import recipe_path
    from tag2mask.errors import Tag2MaskError
    from tag2mask.io.yaml_files import read_yaml

    wrong = False
    for job in jobs:
        try:
            raw = read_yaml(recipe_path(job.recipe))
            apply_overrides(raw, parse_overrides(job.words), job.recipe)
        except Tag2MaskError as error:
            wrong = True
            print(f"{job.label}: {error}")
        else:
            print(f"{job.label}: " + shlex.join(train_command(job, Path("RUN"))))
    raise SystemExit(int(wrong))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("queue", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that pack.py made")
    parser.add_argument("--runs", type=Path, default=Path("runs", "gpu"))
    parser.add_argument("--out", type=Path, default=Path("runs", "gpu", "animals.jsonl"))
    parser.add_argument("--jobs", type=int, default=6, help="experiments at a time")
    parser.add_argument("--workers", type=int, default=2, help="loader processes of each")
    parser.add_argument("--seconds", type=float, default=500, help="time for everything")
    parser.add_argument("--weights-dir", type=Path, help="receives weights of headline runs")
    parser.add_argument("--max-weights", type=int, default=5, help="most weights files to keep")
    parser.add_argument("--limit", type=int, help="score at most this many images of each list")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only these names")
    parser.add_argument("--check", action="store_true", help="only read all recipes")
    args = parser.parse_args()
    for name in ("data", "runs", "out"):
        setattr(args, name, getattr(args, name).resolve())
    return args


def main() -> None:
    """Run the queue and print the summary."""
    args = parse_arguments()
    jobs = read_queue(args.queue, args.data, args.workers)
    jobs = [job for job in jobs if not args.only or job.name in args.only]
    if args.check:
        check(jobs)
    args.runs.mkdir(parents=True, exist_ok=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.touch()
    queue = Queue(jobs, args)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, queue.request_stop)
    queue.run()
    print_summary(args.out)


if __name__ == "__main__":
    main()
