"""Run the code of a commit and that of the working tree, and compare what they produce bit by bit.

Compared are all weights after short training (as multisets of hashes, since names may change), the
losses of every step, the pixels of masks, class scores and evaluations. One thread, no GPU. What
the commit produces is kept in a file, so that the next comparison runs the working tree alone.

Run: python benchmarks/golden/compare.py [--base 96bf254] [--only 'rml*'] [--cache FILE]
    [--keep FOLDER] [--repeat] [--record]
Exit code: 0 everything is equal, 1 something differs or failed.
"""

from __future__ import annotations

import argparse
import base64
import fnmatch
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import after
import before
import yaml
from cases import CASES
from parts import IMAGES, Case, Masks
from PIL import Image

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
RUN = "@RUN@"
"""Stands for the folder of a case."""
IMAGE_COUNT = 20
IMAGE_PX = 96
SIZES = ((96, 96), (96, 75), (61, 96), (80, 64), (72, 91))
"""(width, height) that the shared images are cut to, in turn."""
KINDS = ("weights", "losses", "masks", "class scores", "evaluation")
ONE_THREAD = {
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
    ),
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
}

Results = dict[str, Any]
"""Name of a case -> what `run_side.py` recorded, `job` (a fingerprint) among it."""


class Words(Protocol):
    """What one version calls things: the modules `before` and `after`."""

    def recipe(self, values: Mapping[str, Any], /) -> dict[str, Any]:
        """Translate a recipe or a part of one."""

    def shipped_path(self, name: str, /) -> str:
        """Return the path of a recipe that comes with the package."""

    def overrides(self, changes: Mapping[str, Any], /) -> list[str]:
        """Return the words of the command line that change keys of a recipe."""


class Side(NamedTuple):
    """One version of the code."""

    title: str
    words: Words
    read: Callable[[str], str]
    """Text of a file of this version, by its path within the repository."""


def main() -> int:
    """Compare, print the table and return the exit code."""
    chosen = arguments()
    cases = [case for case in CASES if fnmatch.fnmatch(case.name, chosen.only)]
    if not cases:
        known = ", ".join(case.name for case in CASES)
        raise SystemExit(f"--only {chosen.only}: no such case. Known: {known}")
    base = git("rev-parse", "--verify", f"{chosen.base}^{{commit}}").strip()
    old = Side(f"base {base[:7]}", before, lambda path: git("show", f"{base}:{path}"))
    new = Side("working tree", after, lambda path: (REPOSITORY / path).read_text("utf-8"))
    cache = chosen.cache or REPOSITORY / "build" / "golden" / f"{base}.json"
    with tempfile.TemporaryDirectory(prefix="golden_") as made, worktree(base) as source:
        work = chosen.keep or Path(made)
        stored = read_cache(cache, base)
        stored.setdefault("images", shared_images(source))
        images = write_files(stored["images"], work / "images")
        jobs = [job_of(case, old) for case in cases]
        known = stored["cases"]
        missing = [job for job in jobs if known.get(job["name"], {}).get("job") != job["job"]]
        known |= run(missing, source, work / "base", images, old.title)
        write_cache(cache, stored)
        if chosen.record:
            return 1 if report_failures(known, jobs) else 0
        if chosen.repeat:
            found = run(jobs, source, work / "repeat", images, f"{old.title} again")
        else:
            jobs = [job_of(case, new) for case in cases]
            found = run(jobs, REPOSITORY, work / "new", images, new.title)
    return show([job["name"] for job in jobs], known, found)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default="96bf254", help="commit to compare with")
    parser.add_argument("--only", default="*", help="cases whose names fit this pattern")
    parser.add_argument("--cache", type=Path, help="file of what the commit produced")
    parser.add_argument("--keep", type=Path, help="new folder to keep runs and masks in")
    parser.add_argument("--record", action="store_true", help="run the commit alone")
    parser.add_argument(
        "--repeat", action="store_true", help="run the commit twice: is it the same both times?"
    )
    return parser.parse_args()


def git(*words: str) -> str:
    """Run git in the repository and return what it printed."""
    done = subprocess.run(
        ["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="golden_base_") as made:
        folder = Path(made) / "base"
        git("worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            git("worktree", "remove", "--force", str(folder))


def job_of(case: Case, side: Side) -> dict[str, Any]:
    """Write a case as one version reads it: a recipe, and commands with places left open."""
    recipe = side.words.recipe(case.recipe)
    if case.shipped is not None:
        shipped = yaml.safe_load(side.read(side.words.shipped_path(case.shipped)))
        recipe = overlay(shipped, recipe)
    commands = [["train", f"{RUN}/recipe_to_run.yaml", "--out", f"{RUN}/run"]]
    for masks in case.masks:
        commands += mask_commands(masks, side.words)
    text = yaml.safe_dump(recipe, sort_keys=False)
    fingerprint = hashlib.sha256(json.dumps([text, commands]).encode()).hexdigest()
    return {"name": case.name, "recipe": text, "commands": commands, "job": fingerprint}


def mask_commands(masks: Masks, words: Words) -> list[list[str]]:
    """Commands that write masks of the shared images and score them."""
    out = f"{RUN}/{masks.name}"
    given = IMAGES if masks.command == "label" else f"{IMAGES}/images"
    changes = words.overrides(masks.changes)
    commands = [[masks.command, f"{RUN}/run", given, "--out", out, *changes]]
    if masks.scored:
        scores = f"{RUN}/{masks.name}_scores.json"
        commands.append(["evaluate", out, f"{IMAGES}/masks", "--json", scores])
    return commands


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested changes over a recipe."""
    laid = dict(base)
    for key, value in changes.items():
        below = laid.get(key)
        nested = isinstance(value, Mapping) and isinstance(below, Mapping)
        laid[key] = overlay(below, value) if nested else value
    return laid


def run(
    jobs: Sequence[dict[str, Any]], source: Path, work: Path, images: Path, title: str
) -> Results:
    """Run jobs with the code of `source`, in a process of its own."""
    if not jobs:
        return {}
    print(f"{title}: {len(jobs)} cases", file=sys.stderr, flush=True)
    work.mkdir(parents=True)
    placed = []
    for job in jobs:
        text = json.dumps(job).replace(IMAGES, str(images)).replace(RUN, str(work / job["name"]))
        placed.append(json.loads(text))
    described, recorded = work / "jobs.json", work / "results.json"
    described.write_text(json.dumps(placed), encoding="utf-8")
    script = [sys.executable, str(HERE / "run_side.py"), str(described), str(recorded), str(work)]
    subprocess.run(script, env=environment(source, work), check=True, cwd=work)
    results: Results = json.loads(recorded.read_text(encoding="utf-8"))
    for job in jobs:
        results[job["name"]]["job"] = job["job"]
    return results


def environment(source: Path, work: Path) -> dict[str, str]:
    """Environment of a version's process: its own code, one thread, kernels compiled anew."""
    return {
        **os.environ,
        **ONE_THREAD,
        "PYTHONPATH": str(source / "src"),
        "NUMBA_CACHE_DIR": str(work / "numba"),
    }


def shared_images(source: Path) -> dict[str, str]:
    """Make the shared images with the code of the base: path -> file, as base64 text."""
    with tempfile.TemporaryDirectory(prefix="golden_images_") as made:
        folder = Path(made)
        words = [str(HERE / "before.py"), str(folder), str(IMAGE_COUNT), str(IMAGE_PX)]
        subprocess.run([sys.executable, *words], env=environment(source, folder), check=True)
        for kind in ("images", "masks"):
            for index, path in enumerate(sorted((folder / kind).glob("*.png"))):
                with Image.open(path) as image:
                    image.crop((0, 0, *SIZES[index % len(SIZES)])).save(path)
        rows = (folder / "tags.csv").read_text("utf-8").splitlines()
        rows[-1] = rows[-1].partition(",")[0] + ","  # one image without any class
        (folder / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        return {
            path.relative_to(folder).as_posix(): base64.b64encode(path.read_bytes()).decode()
            for kind in ("images/*.png", "masks/*", "tags.csv")
            for path in sorted(folder.glob(kind))
        }


def write_files(files: Mapping[str, str], folder: Path) -> Path:
    """Write files that are given as base64 text."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(text))
    return folder


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
    """Read what the base produced earlier; what another machine recorded is not used."""
    fresh = {"machine": machine(base), "cases": {}}
    if not path.is_file():
        return fresh
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if stored["machine"] != fresh["machine"]:
        print(f"{path}: is of another machine or version; recorded anew", file=sys.stderr)
        return fresh
    return stored


def write_cache(path: Path, stored: Mapping[str, Any]) -> None:
    """Keep what the base produced; failed cases are run again next time."""
    cases = {name: case for name, case in stored["cases"].items() if not case["failure"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**stored, "cases": cases}, indent=1), encoding="utf-8")
    part.replace(path)


def report_failures(results: Results, jobs: Sequence[Mapping[str, Any]]) -> int:
    """Print what each case of the base produced, and what failed; return how many failed."""
    failed = 0
    for name in (job["name"] for job in jobs):
        print(f"{name}: {results[name]['seconds']} s")
        for place, result in results[name]["results"].items():
            print(f"    {place}: {result['remark']}")
        if results[name]["failure"]:
            failed += 1
            print(f"    FAILED: {results[name]['failure']}")
    return failed


def show(names: Sequence[str], old: Results, new: Results) -> int:
    """Print a row per case, then every difference; return the exit code."""
    widths = [max(len(name) for name in names), *(16 for _ in KINDS)]
    header = ["case", *KINDS]
    print(
        "  ".join(word.ljust(width) for word, width in zip(header, widths, strict=True)),
        "base s  new s",
    )
    details: list[str] = []
    for name in names:
        cells, found = compare_case(name, old[name], new[name])
        details += found
        row = "  ".join(
            word.ljust(width) for word, width in zip([name, *cells], widths, strict=True)
        )
        print(f"{row} {old[name]['seconds']:6.1f} {new[name]['seconds']:6.1f}")
    print("\n".join(["", *details, "DIFFERENT" if details else "EQUAL"]))
    return 1 if details else 0


def compare_case(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Compare what a case produced: a cell for each kind of result, and a line per difference."""
    details = [f"{name}: {side['failure']}" for side in (old, new) if side["failure"]]
    cells = []
    for kind in KINDS:
        places = sorted(
            place
            for place in old["results"].keys() | new["results"].keys()
            if place.startswith(f"{kind} ")
        )
        different = []
        for place in places:
            difference = compare(kind, old["results"].get(place), new["results"].get(place))
            if difference:
                different.append(f"{name}: {place}: {difference}")
        details += different
        count = len(places)
        if different:
            cells.append(f"{len(different)} of {count} DIFFER")
        else:
            cells.append(f"equal ({count})" if count else "-")
    return cells, details


def compare(kind: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    """Say how one result differs; an empty text if it does not."""
    if old is None or new is None:
        return "only in the working tree" if old is None else "missing in the working tree"
    first, second = old["values"], new["values"]
    if kind == "weights":
        gone = Counter(first.values()) - Counter(second.values())
        come = Counter(second.values()) - Counter(first.values())
        if not gone and not come:
            return ""
        named = ", ".join(name for name, value in second.items() if value in come)
        lost, extra = gone.total(), come.total()
        return f"{lost} of {len(first)} tensors have no equal, {extra} are new: {named[:200]}"
    if first == second:
        return ""
    keys = [key for key in first.keys() | second.keys() if first.get(key) != second.get(key)]
    begin = sorted(keys, key=lambda key: (len(key), key))[0]
    detail = "" if kind == "masks" else f", {first.get(begin)} before, {second.get(begin)} now"
    return f"{len(keys)} of {len(first)} differ, first {begin}{detail}"


if __name__ == "__main__":
    sys.exit(main())
