"""From cases to jobs, and jobs run with one version of the code in a process of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml
from parts import IMAGES, Case, Masks
from PIL import Image

HERE = Path(__file__).parent
RUN = "@RUN@"
"""Stands for the folder of a case."""
IMAGE_COUNT = 20
IMAGE_PX = 96
SIZES = ((96, 96), (96, 75), (61, 96), (80, 64), (72, 91))
"""(width, height) that the shared images are cut to, in turn."""
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)

Results = dict[str, Any]
"""Name of a case -> what `run_side.py` recorded, and `job`, the fingerprint of what was run."""


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


def make_job(case: Case, side: Side) -> dict[str, Any]:
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


def run_jobs(
    jobs: Sequence[dict[str, Any]], source: Path, work: Path, images: Path, title: str
) -> Results:
    """Run jobs with the code in `source`; runs, masks and logs are left in `work`."""
    print(f"{title}: {len(jobs)} cases", file=sys.stderr, flush=True)
    work.mkdir(parents=True)
    placed = []
    for job in jobs:
        text = json.dumps(job).replace(IMAGES, str(images)).replace(RUN, str(work / job["name"]))
        placed.append(json.loads(text))
    described, recorded = work / "jobs.json", work / "results.json"
    described.write_text(json.dumps(placed), encoding="utf-8")
    script = [sys.executable, str(HERE / "run_side.py"), str(described), str(recorded), str(work)]
    ended = subprocess.run(script, env=environment(source, work), check=False, cwd=work)
    text = recorded.read_text(encoding="utf-8") if recorded.is_file() else "{}"
    results: Results = json.loads(text)
    stopped = {"failure": f"not run: exit code {ended.returncode}", "results": {}, "seconds": 0.0}
    return {job["name"]: {**results.get(job["name"], stopped), "job": job["job"]} for job in jobs}


def environment(source: Path, work: Path) -> dict[str, str]:
    """Environment of one version: its own code, one thread, no GPU, kernels compiled anew."""
    return {
        **os.environ,
        **ONE_THREAD,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
        "NUMBA_CACHE_DIR": str(work / "numba"),
        "PYTHONPATH": str(source / "src"),
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
    """Write files that are given as base64 text; return the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(text))
    return folder
