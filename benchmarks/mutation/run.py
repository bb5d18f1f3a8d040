"""Put one small error at a time into a source file and see whether its tests fail.

Works on a copy of the checkout. Each file is tested by what concerns it: its twin in `tests/unit`,
its doctests, the files of `tests/reference` that carry its name, and the conformance tests of its
plug-in. Tests longer than `--longest` are left out, so a full run of the suite may catch more.
An error is caught when a test fails or the tests need far more time than without it.

Run: build/mutate/bin/python benchmarks/mutation/run.py FILE_OR_FOLDER ... [--sample 40 --seed 1]
    [--again] [--longest 5] [--python .venv/bin/python] [--json benchmarks/results/mutation.json]
`--again` repeats the recorded sample but runs its survivors only, after tests were added.
Exit code 1 if fewer than 90 % of a file's errors are caught.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutants import Mutant

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "mutation"
PACKAGE = Path("src/tag2mask")
ASKED = 0.9
Changes = set[tuple[int, str, str]]
"""Line, text before and text after of errors."""
OPTIONS = ("-n0", "-q", "-x", "-p", "no:cacheprovider", "-W", "ignore:Module already imported")
"""Of pytest; the worker has loaded a pytest plug-in before pytest itself does."""


class Tests:
    """The tests of one file, run in a copy of the checkout.

    Attributes:
        durations: Test -> seconds, without errors; those that take too long are left out.
        left_out: The tests that take too long.
    """

    def __init__(self, worker: subprocess.Popen[str], source: Path, longest: float) -> None:
        self.worker, self.source = worker, source
        self.original = (BUILD / source).read_text(encoding="utf-8")
        self.files = tests_of(source, BUILD)
        answer = self._run(None, 0)  # compiles kernels and bytecode, so the times are too long
        if answer["code"] != 0:
            output = (BUILD / "output.txt").read_text(encoding="utf-8")
            raise SystemExit(f"{source}: its tests fail without an error\n{output}")
        measured = self._measured()
        hopeful = {name: took for name, took in measured.items() if took <= 3 * longest}
        self.cpu_s = self._run(hopeful, 0)["cpu_s"]
        warm = self._measured()
        self.durations = {name: took for name, took in warm.items() if took <= longest}
        self.left_out = sorted(set(measured) - set(self.durations))

    def outcome(self, mutant: Mutant) -> str:
        """Return "caught", "timeout" or "survived"."""
        path = BUILD / self.source
        for stale in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            stale.unlink()
        path.write_text(mutant.text, encoding="utf-8")
        try:
            code = self._run(self.durations, 3 * self.cpu_s + 5)["code"]
        finally:
            path.write_text(self.original, encoding="utf-8")
        return {0: "survived"}.get(code, "timeout" if code < 0 else "caught")

    def _run(self, known: dict[str, float] | None, cpu_s: float) -> Any:
        job = {
            "arguments": [*OPTIONS, *self.files],
            "plugin": plugin_of(self.source),
            "known": known,
            "cpu_s": cpu_s,
            "output": str(BUILD / "output.txt"),
            "durations": str(BUILD / "durations.json"),
        }
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.worker.stdin.write(json.dumps(job) + "\n")
        self.worker.stdin.flush()
        return json.loads(self.worker.stdout.readline())

    def _measured(self) -> dict[str, float]:
        found: dict[str, float] = json.loads((BUILD / "durations.json").read_text())
        return found


def plugin_of(source: Path) -> str:
    """Name the plug-in, or the file, that a source file belongs to: its folder or its stem."""
    inside = source.relative_to(PACKAGE)
    return inside.parts[1] if len(inside.parts) > 2 else inside.stem


def tests_of(source: Path, root: Path) -> list[str]:
    """Name the test files that concern a source file, and the file itself for its doctests."""
    inside = source.relative_to(PACKAGE)
    found = [root / source, *root.glob(f"tests/unit/{inside.parent}/test_{inside.name}")]
    found += sorted(root.glob(f"tests/reference/test_{plugin_of(source)}*.py"))
    if len(inside.parts) < 3 or inside.stem == "method":  # the contract is that of the plug-in
        found += root.glob(f"tests/conformance/test_{inside.parts[0]}.py")
    return [path.relative_to(root).as_posix() for path in found]


def sources_of(names: Sequence[str]) -> list[Path]:
    """Find the source files that are named or lie in a named folder, without package markers."""
    found = []
    for name in names:
        path = (ROOT / name).resolve()
        inside = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found += [file.relative_to(ROOT) for file in inside if file.name != "__init__.py"]
    return found


def copy_checkout() -> str:
    """Copy all files that git would commit to `BUILD` and return the commit."""
    listing = _git("ls-files", "--cached", "--others", "--exclude-standard")
    shutil.rmtree(BUILD, ignore_errors=True)
    for name in listing.splitlines():
        if (ROOT / name).is_file():
            (BUILD / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, BUILD / name)
    changed = _git("status", "--porcelain", "--", "src", "tests")
    return _git("rev-parse", "--short", "HEAD") + (" and changes" if changed else "")


def start_worker(python: Path) -> subprocess.Popen[str]:
    """Start the process that runs tests in the copy."""
    environment = os.environ | {
        "PYTHONPATH": str(BUILD / "src"),
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [python, Path(__file__).with_name("worker.py")],
        cwd=BUILD,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def measure(
    source: Path, tests: Tests, mutants: Sequence[Mutant], survived: Changes | None = None
) -> dict[str, Any]:
    """Test each mutant; return how many were caught and which survived without a reason.

    Args:
        source: The source file.
        tests: Its tests.
        mutants: What to test.
        survived: The changes that survived an earlier run; all others count as caught. None: test
            all.
    """
    reasons = accepted(source)
    outcomes = []
    for number, mutant in enumerate(mutants, 1):
        known = survived is not None and (mutant.line, mutant.before, mutant.after) not in survived
        outcomes.append("caught" if known else tests.outcome(mutant))
        sys.stderr.write(f"\r{source}: {number} of {len(mutants)}")
    sys.stderr.write("\n")
    survivors, kept = [], []
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        entry = {"line": mutant.line, "before": mutant.before, "after": mutant.after}
        reason = reasons.get((mutant.before, mutant.after))
        if outcome == "survived" and reason:
            kept.append(entry | {"reason": reason})
        elif outcome == "survived":
            survivors.append(entry)
    caught = len(mutants) - len(survivors) - len(kept)
    return {
        "tested": len(mutants),
        "caught": caught,
        "of_them_timeouts": outcomes.count("timeout"),
        "caught_share": round(caught / max(1, caught + len(survivors)), 4),
        "survivors": survivors,
        "accepted": kept,
        "tests": tests.files,
        "tests_left_out": tests.left_out,
    }


def recorded(path: Path, source: str) -> dict[str, Any]:
    """Read the entry of a source file; empty if there is none."""
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    entry: dict[str, Any] = entries.get(source, {})
    return entry


def survivors_of(entry: dict[str, Any], command: str) -> Changes | None:
    """List the changes that survived in an earlier run of a command; None without one.

    Changes are known by their line and text, so the source file has to be the same.
    """
    if not entry:
        return None
    if entry["command"] != command:
        raise SystemExit(f"--again: the recorded run was `{entry['command']}`")
    found = [*entry["survivors"], *entry["accepted"]]
    return {(one["line"], one["before"], one["after"]) for one in found}


def accepted(source: Path) -> dict[tuple[str, str], str]:
    """Read the survivors of a file that no test can catch: (before, after) -> reason."""
    path = Path(__file__).with_name("accepted.toml")
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["survivor"]
    return {
        (entry["before"], entry["after"]): entry["reason"]
        for entry in entries
        if entry["file"] == source.as_posix()
    }


def describe(source: str, entry: dict[str, Any]) -> str:
    """One line on a file, then one on each survivor."""
    scope = f"{entry['tested']} of {entry['mutants']} errors"
    if entry["sampled"]:
        scope += f", sampled with seed {entry['seed']}"
    lines = [f"{source}: {entry['caught_share']:.1%} caught ({scope}), {entry['seconds']:.0f} s"]
    for kind in ("survivors", "accepted"):
        for found in entry[kind]:
            reason = f"  accepted: {found['reason']}" if kind == "accepted" else ""
            lines.append(f"  {found['line']}: {found['before']}  ->  {found['after']}{reason}")
    return "\n".join(lines)


def write_entry(path: Path, source: str, entry: dict[str, Any]) -> None:
    """Add an entry to a results file, in place of an older one on the same source file."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    text = json.dumps(known | {source: entry}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", help="source files or folders")
    parser.add_argument("--sample", type=int, default=0, help="errors per file; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="decides which errors are drawn")
    parser.add_argument("--again", action="store_true", help="survivors of the recorded run only")
    parser.add_argument("--longest", type=float, default=5.0, help="seconds of a test, at most")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv/bin/python")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/mutation.json")
    return parser.parse_args()


def main() -> None:
    """Measure the named files, one after the other; write each result at once."""
    from mutants import mutants_of  # needs cosmic-ray, which tests of this file do without

    options = parse()
    sources, commit = sources_of(options.files), copy_checkout()
    worker, entries = start_worker(options.python), {}
    for source in sources:
        start = time.monotonic()
        text = (ROOT / source).read_text(encoding="utf-8")
        mutants, count = mutants_of(text, options.sample, options.seed)
        tests = Tests(worker, source, options.longest)
        command = f"python benchmarks/mutation/run.py {source.as_posix()}"
        if sampled := len(mutants) < count:
            command += f" --sample {options.sample} --seed {options.seed}"
        entry = {"command": command, "commit": commit, "sampled": sampled, "mutants": count}
        entry |= {"seed": options.seed} if sampled else {}
        earlier = recorded(options.json, source.as_posix()) if options.again else {}
        entry |= measure(source, tests, mutants, survivors_of(earlier, command))
        if earlier:
            entry |= {"commit": earlier["commit"], "survivors_again_at": commit}
        entry |= {"seconds": round(time.monotonic() - start)}
        entries[source.as_posix()] = entry
        write_entry(options.json, source.as_posix(), entry)
    worker.communicate()
    print("\n".join(describe(source, entry) for source, entry in entries.items()))
    low = [name for name, entry in entries.items() if entry["caught_share"] < ASKED]
    if low:
        raise SystemExit(f"fewer than {ASKED:.0%} caught: {', '.join(low)}")


if __name__ == "__main__":
    main()
