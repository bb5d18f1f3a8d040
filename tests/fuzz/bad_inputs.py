"""Give broken files and lines to the program, in this process, and check what it answers.

`python -m tests.fuzz.bad_inputs --examples 3500` prints how many inputs each entry refused.
"""

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.fuzz.fuzz_world import IMPORTS, build_fuzz_world
from tests.fuzz.mutations import NAMES, ODD_VALUES, Change, changes

from tag2mask import plugins
from tag2mask.cli.main import main

OUT = "out"
MOST_SECONDS = 20
MOST_MIB = 1024
MOST_LETTERS = 2_100
MOST_LINES = 60
RECIPE_WORDS = (
    *("optim.steps", "optim.lr", "optim.batch_size", "data.crop_px", "data.classes", "data.root"),
    *("predict.scales", "predict.background", "run.seed", "run.workers", "method", "refiner"),
    *("backbone", "backbone.width", "stages.a.optim.lr", "nothing", "optim", "a.b", "data.tags"),
)


class Entry(NamedTuple):
    """One door of the program, and what behind it is broken."""

    name: str
    line: str
    """What is typed; `OUT` is a path that does not exist yet."""
    files: tuple[tuple[str, str], ...] = ()
    """Path and kind of each file to break, one of them at a time; empty: words are broken."""
    needs: tuple[str, ...] = ()
    """What is copied from the world; `part_of` each file is copied in any case."""
    writes: str = OUT
    """What the line may write."""


ABSENT = "data.root=absent run.estimate=false"
ENTRIES = (
    Entry("recipe", f"train own.yaml {ABSENT} --out OUT", (("own.yaml", "json"),)),
    Entry("recipe text", f"train own.yaml {ABSENT} --out OUT", (("own.yaml", "text"),)),
    Entry("stages", "list keys staged.yaml", (("staged.yaml", "text"),)),
    Entry("overrides", f"train own.yaml {ABSENT} --out OUT", needs=("own.yaml",)),
    Entry("tags.csv", "check pets", (("pets/tags.csv", "text"),)),
    Entry("tags.jsonl", "check lines", (("lines/tags.jsonl", "jsonl"),)),
    Entry("image of a folder", "check pets", (("pets/images/a.png", "image"),)),
    Entry(
        "class folder", "check byclass", (("byclass/cat", "image"), ("byclass/cat/a.png", "image"))
    ),
    Entry("image", "predict trained one.png --out OUT", (("one.png", "image"),), ("trained",)),
    Entry("mask", "evaluate masks truth", (("masks/a.png", "image"), ("truth/b.png", "image"))),
    Entry("classes.json", "evaluate masks truth", (("masks/classes.json", "json"),), ("truth",)),
    Entry("COCO data", "check coco", (("coco/train/_annotations.coco.json", "json"),)),
    Entry(
        "VOC data",
        "check voc",
        (("voc/Annotations/a.xml", "text"), ("voc/ImageSets/Segmentation/train.txt", "text")),
    ),
    Entry(
        "run to predict with",
        "predict trained one.png --out OUT",
        (
            ("trained/recipe.yaml", "text"),
            ("trained/metrics.json", "json"),
            ("trained/weights/last.safetensors", "bytes"),
            ("trained/weights/best.safetensors", "bytes"),
            ("trained/tune.json", "json"),
        ),
        ("one.png",),
    ),
    Entry(
        "run to report",
        "report trained",
        (
            ("trained/recipe.yaml", "text"),
            ("trained/log.jsonl", "jsonl"),
            ("trained/metrics.json", "json"),
        ),
        (),
        "trained/report.html",
    ),
    Entry(
        "run to resume",
        "train --resume trained optim.steps=2",
        (
            ("trained/recipe.yaml", "text"),
            ("trained/log.jsonl", "jsonl"),
            ("trained/metrics.json", "json"),
            ("trained/state/state.safetensors", "bytes"),
        ),
        ("pets",),
        "trained",
    ),
    Entry(
        "masks to export",
        "export labeled --images pets/images --format coco --out OUT.json",
        (
            ("labeled/classes.json", "json"),
            ("labeled/scores.jsonl", "jsonl"),
            ("labeled/a.png", "image"),
        ),
        ("pets",),
        "OUT.json",
    ),
    Entry(
        "most uncertain masks",
        "export labeled --most-uncertain 2 --images pets/images --format voc_png --out OUT",
        (("labeled/classes.json", "json"), ("labeled/scores.jsonl", "jsonl")),
        ("pets",),
    ),
)
IMPORTED = {
    "coco": (("coco.json", "json"),),
    "cvat": (("cvat.zip", "bytes"),),
    "fiftyone": (("fiftyone/mask_targets.json", "json"), ("fiftyone/labels/a.png", "image")),
    "label_studio": (("label_studio/tasks.json", "json"), ("label_studio/config.xml", "text")),
    "ultralytics_semantic": (
        ("semantic/data.yaml", "text"),
        ("semantic/masks/train/a.png", "image"),
    ),
    "voc_png": (("voc_png/classes.json", "json"), ("voc_png/a.png", "image")),
    "yolo_seg": (("yolo/data.yaml", "text"), ("yolo/labels/train/a.txt", "text")),
}


def all_entries() -> tuple[Entry, ...]:
    """Every door, those of `import` included."""
    imports = (
        Entry(
            f"import {name}",
            f"import exports/{IMPORTS[name]} --format {name} --images pets/images --out OUT",
            tuple((f"exports/{path}", kind) for path, kind in files),
            ("pets",),
        )
        for name, files in IMPORTED.items()
    )
    return (*ENTRIES, *imports)


class Input(NamedTuple):
    """One input: the line, and the change of one file."""

    entry: Entry
    words: tuple[str, ...]
    path: str = ""
    change: Change = Change("write")


class Outcome(NamedTuple):
    """What the program did with an input."""

    code: int
    problems: tuple[str, ...]
    """What it should not have done."""
    seconds: float


class Tally:
    """Counts distinct inputs by entry, and collects what went wrong."""

    def __init__(self) -> None:
        self.digests: set[bytes] = set()
        self.refused: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.problems: list[str] = []
        self.slowest = 0.0

    def add(self, given_input: Input, outcome: Outcome) -> None:
        """Count one input, unless it was given before."""
        digest = hashlib.sha256(repr(given_input).encode("utf-8", "backslashreplace")).digest()
        if digest in self.digests:
            return
        self.digests.add(digest)
        counter = self.refused if outcome.code == 2 else self.accepted
        counter[given_input.entry.name] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.problems += [f"{describe(given_input)}\n    {one}" for one in outcome.problems]


def describe(given_input: Input) -> str:
    """Say what was given."""
    how, content, name = given_input.change
    line = " ".join(given_input.words)
    return f"{line[:200]!r}: {given_input.path} {how} {name!r} {content[:300]!r}"


@st.composite
def inputs(draw: Callable[[Any], Any], world: Path, entries: tuple[Entry, ...]) -> Input:
    """Draw a door and break what is behind it."""
    entry = draw(st.sampled_from(entries))
    words = tuple(entry.line.split())
    if not entry.files:
        value = draw(st.one_of(st.sampled_from(ODD_VALUES), st.sampled_from(NAMES)))
        word = f"{draw(st.sampled_from(RECIPE_WORDS))}={value}".replace("\x00", "")
        return Input(entry, (*words, word))
    path, kind = draw(st.sampled_from(entry.files))
    source = world / path
    content = source.read_bytes() if source.is_file() else b""
    if source.is_dir():
        return Input(entry, words, path, Change("rename", name=draw(st.sampled_from(NAMES))))
    if kind == "json" and path.endswith(".yaml"):
        content = as_json(content)
    return Input(entry, words, path, draw(changes(content, kind)))


def as_json(content: bytes) -> bytes:
    """Turn YAML into JSON, which is YAML too."""
    return json.dumps(yaml.safe_load(content)).encode()


def give(given_input: Input, world: Path, root: Path) -> Outcome:
    """Copy what an input needs, break it, type the line, and compare everything afterwards."""
    entry = given_input.entry
    for part in {part_of(path) for path, _ in entry.files} | set(entry.needs):
        (root / part).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (world / part).is_dir() else shutil.copyfile
        copy(world / part, root / part)
    if given_input.path:
        apply_change(root / given_input.path, given_input.change)
    words = [word.replace("OUT", OUT) for word in given_input.words]
    before, start = files_of(root, entry.writes), time.process_time()
    code, errors, crash = type_line(words, root)
    seconds = time.process_time() - start  # other programs may keep the machine busy
    problems = [crash] if crash else list(wrong_lines(code, errors))
    if seconds > MOST_SECONDS:
        problems.append(f"took {seconds:.0f} s")
    if (after := files_of(root, entry.writes)) != before:
        problems.append(f"changed {sorted(map(str, before.items() ^ after.items()))[:4]}")
    return Outcome(code, tuple(problems), seconds)


def part_of(path: str) -> str:
    """Return what to copy of the world to break a file of it: one folder, one file, one export."""
    parts = path.split("/")
    return "/".join(parts[: 2 if parts[0] == "exports" else 1])


def apply_change(path: Path, change: Change) -> None:
    """Break one file."""
    if change.how == "rename":
        path.rename(path.with_name(change.name + path.suffix))
        return
    path.unlink(missing_ok=True)
    make = {
        "write": lambda: path.write_bytes(change.content),
        "delete": lambda: None,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "dangling": lambda: path.symlink_to("nowhere"),
        "loop": lambda: path.symlink_to(path.name),
        "zero": lambda: path.symlink_to("/dev/zero"),
    }
    make[change.how]()


def type_line(words: list[str], root: Path) -> tuple[int, str, str]:
    """Return exit code, lines on standard error, and the traceback of an error that got out."""
    errors, here = io.StringIO(), Path.cwd()
    os.chdir(root)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            code = main(words)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return 1, errors.getvalue(), "".join(traceback.format_exception(error)[-6:])
    finally:
        os.chdir(here)
    return code, errors.getvalue(), ""


def wrong_lines(code: int, errors: str) -> Iterator[str]:
    """Yield what is wrong with exit code and lines."""
    if code not in (0, 2):
        yield f"exit code {code}"
    lines = errors.split("\n")[:-1]
    if code == 2 and not any(line.startswith("error: ") for line in lines):
        yield f"exit code 2 without a line: {errors[:300]!r}"
    if len(lines) > MOST_LINES:
        yield f"{len(lines)} lines"
    for line in lines:
        if len(line) > MOST_LETTERS:
            yield f"a line of {len(line)} characters: {line[:100]!r}"
        if any(not letter.isprintable() and letter not in "\u200d\u200c\xa0" for letter in line):
            yield f"a line that commands the terminal: {line[:300]!r}"
        if code == 2 and line.startswith("error: forged"):
            yield f"a forged line: {line[:300]!r}"
        if "Traceback" in line:
            yield f"a traceback: {line[:300]!r}"


def files_of(root: Path, writes: str) -> dict[str, tuple[int, int]]:
    """Time and size of everything below `root` but what the line may write."""
    return {
        str(path.relative_to(root)): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in root.rglob("*")
        if path.is_file() and not str(path.relative_to(root)).startswith((writes, OUT))
    }


def peak_mib() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(
    examples: int,
    start: int,
    world: Path,
    *,
    only: str = "",
    seconds: float = math.inf,
    enough: float = math.inf,
) -> Tally:
    """Give drawn inputs to the program; equal numbers draw equal inputs.

    Args:
        examples: Number of inputs.
        start: Seed.
        world: From `build_fuzz_world`; without a trained run, no run is broken.
        only: Part of the names of the entries to draw from.
        seconds: Time after which no more inputs are given.
        enough: Refused inputs after which no more are given.
    """
    tally = Tally()
    has_run = (world / "trained").is_dir()
    entries = tuple(
        entry
        for entry in all_entries()
        if only in entry.name and (has_run or "trained" not in entry.line)
    )
    before, end = peak_mib(), time.monotonic() + seconds

    @seed(start)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(world, entries))
    def run(given_input: Input) -> None:
        if time.monotonic() > end or tally.refused.total() >= enough:
            return
        with tempfile.TemporaryDirectory() as folder:
            outcome = give(given_input, world, Path(folder))
        tally.add(given_input, outcome)

    plugins_of_program = plugins._defined_in_program
    plugins._defined_in_program = lambda package: {}  # other tests define methods
    try:
        run()
    finally:
        plugins._defined_in_program = plugins_of_program
    if (grown := peak_mib() - before) > MOST_MIB:
        tally.problems.append(f"memory grew by {grown:,.0f} MiB")
    return tally


def run_from_shell() -> int:
    """Print the counts; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=3500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of an entry's name")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after this time")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder)
        os.chdir(world)
        build_fuzz_world(world, trained=True)
        tally = fuzz(chosen.examples, chosen.seed, world, only=chosen.only, seconds=chosen.seconds)
        os.chdir("/")
    sys.stdout.write("\n".join(lines_of(tally)) + "\n")
    return 1 if tally.problems else 0


def lines_of(tally: Tally) -> Iterator[str]:
    """Yield the counts by entry, and what went wrong."""
    for name in sorted({*tally.refused, *tally.accepted}):
        yield f"{name:<28}{tally.refused[name]:>6} refused {tally.accepted[name]:>6} tolerated"
    yield f"{'distinct inputs refused':<28}{tally.refused.total():>6} with exit code 2"
    yield f"slowest: {tally.slowest:.2f} s of a processor, peak memory: {peak_mib():,.0f} MiB"
    yield from (f"PROBLEM {problem}" for problem in tally.problems)


if __name__ == "__main__":
    sys.exit(run_from_shell())
