"""Run the code of a commit and that of the working tree, and compare what they produce bit by bit.

Compared are all weights after short training (as multisets of hashes, since names may change), the
losses of every step, the pixels of masks, class scores and evaluations. One thread, no GPU. What
the commit produces is kept in a file, so that the next comparison runs the working tree alone.

Run: python benchmarks/golden/compare.py [--base 96bf254] [--only 'rml*'] [--cache FILE]
    [--keep FOLDER] [--repeat | --record]
Exit code: 0 everything is equal, 1 something differs or failed.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import json
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import after
import before
from cases import CASES
from differences import print_results, print_table
from jobs import Side, make_job, run_jobs, shared_images, write_files

REPOSITORY = Path(__file__).parents[2]


def main() -> int:
    """Compare, print the table and return the exit code."""
    chosen = parse_arguments()
    base = git("rev-parse", "--verify", f"{chosen.base}^{{commit}}").decode().strip()
    cases = [case for case in CASES if fnmatch.fnmatch(case.name, chosen.only)]
    names = [case.name for case in cases]
    old = Side(f"base {base[:7]}", before, lambda path: git("show", f"{base}:{path}").decode())
    new = Side("working tree", after, lambda path: (REPOSITORY / path).read_text("utf-8"))
    cache = chosen.cache or REPOSITORY / "build" / "golden" / f"{base}.json"
    with tempfile.TemporaryDirectory(prefix="golden_") as made:
        work = chosen.keep.resolve() if chosen.keep else Path(made)
        old_jobs = [make_job(case, old) for case in cases]
        stored = record_base(base, old, old_jobs, cache, work)
        if chosen.record:
            return print_results(names, stored["cases"])
        images = write_files(stored["images"], work / "images")
        if chosen.repeat:
            with checkout(base) as source:
                found = run_jobs(old_jobs, source, work / "repeat", images, f"{old.title} again")
        else:
            jobs = [make_job(case, new) for case in cases]
            found = run_jobs(jobs, REPOSITORY, work / "new", images, new.title)
    return print_table(names, stored["cases"], found)


def parse_arguments() -> argparse.Namespace:
    """Read the command line; refuse what cannot work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default="96bf254", help="commit to compare with")
    parser.add_argument("--only", default="*", help="cases whose names fit this pattern")
    parser.add_argument("--cache", type=Path, help="file of what the commit produced")
    parser.add_argument("--keep", type=Path, help="new folder to keep runs and masks in")
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument(
        "--record", action="store_true", help="run the commit alone and list results"
    )
    alone.add_argument("--repeat", action="store_true", help="compare the commit with itself")
    chosen = parser.parse_args()
    if not any(fnmatch.fnmatch(case.name, chosen.only) for case in CASES):
        known = ", ".join(case.name for case in CASES)
        parser.error(f"--only {chosen.only}: no such case. Known: {known}")
    if chosen.keep and chosen.keep.exists():
        parser.error(f"--keep {chosen.keep}: exists already; name a new folder")
    return chosen


def record_base(
    base: str, side: Side, jobs: list[dict[str, Any]], cache: Path, work: Path
) -> dict[str, Any]:
    """Return what the base produces, from the cache where it was made by the same jobs."""
    stored = read_cache(cache, base)
    cases = stored["cases"]
    missing = [job for job in jobs if cases.get(job["name"], {}).get("job") != job["job"]]
    if missing:
        with checkout(base) as source:
            if "images" not in stored:
                stored["images"] = shared_images(source)
            images = write_files(stored["images"], work / "images")
            cases.update(run_jobs(missing, source, work / "base", images, side.title))
        write_cache(cache, stored)
    return stored


def git(*words: str) -> bytes:
    """Run git in the repository and return what it printed."""
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(words)}: {done.stderr.decode().strip()}")
    return done.stdout


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Write the source code of a commit into a temporary folder; the repository is not changed."""
    with tempfile.TemporaryDirectory(prefix="golden_base_") as made:
        with tarfile.open(fileobj=io.BytesIO(git("archive", commit, "src"))) as files:
            files.extractall(made, filter="data")
        yield Path(made)


def machine(base: str) -> dict[str, str]:
    """Everything beside the code that decides the last bits."""
    names = ("torch", "numpy", "numba", "pillow", "transformers")
    packages = {name: version(name) for name in names}
    return {"base": base, "python": platform.python_version(), "cpu": cpu_name(), **packages}


def cpu_name() -> str:
    """Model of the processor, as far as the system tells."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text("utf-8").splitlines() if described.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def read_cache(path: Path, base: str) -> dict[str, Any]:
    """Read what the base produced earlier; results of another machine are not used."""
    fresh = {"machine": machine(base), "cases": {}}
    if not path.is_file():
        return fresh
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if stored["machine"] != fresh["machine"]:
        print(f"{path}: made on another machine or with other packages; not used", file=sys.stderr)
        return fresh
    return stored


def write_cache(path: Path, stored: Mapping[str, Any]) -> None:
    """Keep what the base produced; failed cases are run again next time."""
    cases = {name: case for name, case in stored["cases"].items() if not case["failure"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**stored, "cases": cases}, indent=1), encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
