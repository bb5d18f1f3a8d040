"""Run cases with one version of the code and record what they produce; knows neither version.

`compare.py` starts it with the source folder of that version first on PYTHONPATH. Every command is
`python -m tag2mask ...` in a child process that begins with torch already imported, so that no
command leaves anything to the next and nobody waits for imports.

Run: python benchmarks/golden/run_side.py JOBS.json RESULTS.json FOLDER
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import multiprocessing
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

PRELOADED = ("torch", "numba", "accelerate", "torch.utils.tensorboard")
"""Third-party packages that are slow to import; a missing one is left to the code under test."""
SHOWN_LINES = 15
"""Last lines of a failed command's output that are kept."""


def main(jobs_path: str, results_path: str, folder: str) -> None:
    """Run every job; after each, the results so far are whole on the disk."""
    refuse_other_code()
    preload()
    results: dict[str, Any] = {}
    for job in json.loads(Path(jobs_path).read_text(encoding="utf-8")):
        begin = processor_seconds()
        results[job["name"]] = run_job(job, Path(folder) / job["name"])
        seconds = results[job["name"]]["seconds"] = round(processor_seconds() - begin, 1)
        part = Path(results_path).with_suffix(".part")
        part.write_text(json.dumps(results), encoding="utf-8")
        part.replace(results_path)
        state = "FAILED" if results[job["name"]]["failure"] else "done"
        print(
            f"  {job['name']}: {state}, {seconds} s of processor time", file=sys.stderr, flush=True
        )


def refuse_other_code() -> None:
    """Stop if an installed copy of the package would be run in place of the version asked for."""
    spec = importlib.util.find_spec("tag2mask")
    source = os.environ["PYTHONPATH"]
    if spec is None or not str(spec.origin).startswith(source):
        raise SystemExit(f"tag2mask would come from {spec and spec.origin}, not from {source}")


def preload() -> None:
    """Import what children would import anyway, and allow torch one thread."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)


def processor_seconds() -> float:
    """Processor time of this process and its finished children; other programs do not slow it."""
    times = os.times()
    return sum((times.user, times.system, times.children_user, times.children_system))


def run_job(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the recipe, run the commands until one fails, and record what lies in the folder."""
    folder.mkdir(parents=True)
    (folder / "recipe_to_run.yaml").write_text(job["recipe"], encoding="utf-8")
    failure = ""
    for number, words in enumerate(job["commands"]):
        log = folder / f"command_{number}.log"
        process = multiprocessing.get_context("fork").Process(target=command, args=(words, log))
        process.start()
        process.join()
        if process.exitcode:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            failure = "\n".join(["tag2mask " + " ".join(words), *lines[-SHOWN_LINES:]])
            break
    return {"failure": failure, "results": record(folder)}


def command(words: list[str], log: Path) -> None:
    """Be `python -m tag2mask WORDS`, with all output in a file."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["tag2mask", *words]
    runpy.run_module("tag2mask", run_name="__main__")


def record(folder: Path) -> dict[str, Any]:
    """Digest everything that may not change: `kind place` -> comparable values, and a remark."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        if path.parent.name == "weights":
            tensors = hashed_tensors(path)
            found[f"weights {place(path.with_suffix(''), folder)}"] = entry(tensors, "tensors")
    for path in sorted(folder.rglob("classes.json")):
        masks, remark = hashed_masks(path.parent)
        found[f"masks {place(path.parent, folder)}"] = {"values": masks, "remark": remark}
        rows = [json.loads(line) for line in lines_of(path.with_name("scores.jsonl"))]
        probabilities = {first_text(row): sorted(numbers(row)) for row in rows}
        found[f"class scores {place(path.parent, folder)}"] = entry(probabilities, "images")
    for path in sorted(folder.rglob("*.json")):
        scores = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(scores, dict) and "iou" in scores:
            kept = {key: scores.get(key) for key in ("iou", "miou", "images")}
            remark = f"mIoU {kept['miou']}"
            found[f"evaluation {place(path, folder)}"] = {"values": kept, "remark": remark}
    for path in sorted(folder.rglob("log.jsonl")):
        rows = [json.loads(line) for line in lines_of(path)]
        losses = {str(row["step"]): row["loss"] for row in rows if "loss" in row}
        parts = [part for row in rows for part in row.get("losses", {}).items()]
        names = sorted({name for name, loss in parts if loss})
        found[f"losses {place(path.parent, folder)}"] = {
            "values": losses,
            "remark": f"{len(losses)} steps: {', '.join(names)}",
        }
    return found


def place(path: Path, folder: Path) -> str:
    """Name of a result: its path within the folder of its case."""
    return path.relative_to(folder).as_posix()


def entry(values: dict[str, Any], unit: str) -> dict[str, Any]:
    """A result with the number of its parts as the remark."""
    return {"values": values, "remark": f"{len(values)} {unit}"}


def hashed_tensors(path: Path) -> dict[str, str]:
    """Name of each tensor -> SHA-256 of its type, shape and bytes."""
    found = {}
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 the file is no mapping
            found[name] = digest(file.get_tensor(name))
    return found


def hashed_masks(folder: Path) -> tuple[dict[str, str], str]:
    """Name of each mask -> SHA-256 of its pixels; and which values the masks hold."""
    found, counts = {}, np.zeros(256, dtype=np.int64)
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            pixels = np.array(image)
        found[path.relative_to(folder).as_posix()] = digest(pixels)
        counts += np.bincount(pixels.ravel(), minlength=256)
    total = max(1, int(counts.sum()))
    foreground, ignored = counts[1:255].sum() / total, counts[255] / total
    classes = np.count_nonzero(counts[1:255])
    remark = f"{len(found)} masks, {foreground:.0%} foreground of {classes} classes"
    return found, f"{remark}, {ignored:.0%} ignored" if ignored else remark


def digest(array: np.ndarray[Any, Any]) -> str:
    """SHA-256 of an array's type, shape and bytes."""
    head = f"{array.dtype} {array.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def lines_of(path: Path) -> list[str]:
    """Lines of a text file; none if it is missing."""
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def first_text(row: dict[str, Any]) -> str:
    """First text of a row of scores: the name of the image, whatever its key."""
    return next((value for value in row.values() if isinstance(value, str)), "?")


def numbers(value: object) -> Iterator[float]:
    """All numbers within a JSON value, whatever their keys."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
