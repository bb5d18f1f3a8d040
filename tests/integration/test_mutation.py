"""`make mutate` runs the tests that concern a file, on errors that mean something."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "mutation"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs a checkout")


@pytest.fixture
def load(monkeypatch):
    """Import a script under a name of its own: another folder also has a `run`."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"mutation_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("functional/cam.py", ["tests/unit/functional/test_cam.py"]),
        (
            "methods/rml/neck.py",
            ["tests/unit/methods/rml/test_neck.py", "tests/reference/test_rml_step.py"],
        ),
        (
            "methods/rml/method.py",
            [
                "tests/unit/methods/rml/test_method.py",
                "tests/reference/test_rml_step.py",
                "tests/conformance/test_methods.py",
            ],
        ),
        (
            "methods/afa.py",
            [
                "tests/unit/methods/test_afa.py",
                "tests/reference/test_afa_parity.py",
                "tests/reference/test_afa_step.py",
                "tests/conformance/test_methods.py",
            ],
        ),
    ],
)
def test_a_file_is_tested_by_its_twin_its_references_and_its_contract(load, source, expected):
    path = Path("src/tag2mask") / source
    assert load("run").tests_of(path, ROOT) == [path.as_posix(), *expected]


def test_accepted_survivors_do_not_count_and_a_sample_is_called_one(load, monkeypatch):
    run = load("run")
    monkeypatch.setattr(run, "accepted", lambda source: {("a", "b"): "same"})
    found = {"b": "survived", "c": "survived", "d": "caught", "e": "timeout"}
    mutants = [SimpleNamespace(line=1, before="a", after=after) for after in found]
    tests = SimpleNamespace(outcome=lambda mutant: found[mutant.after], files=["t.py"], left_out=[])
    entry = run.measure(Path("x.py"), tests, mutants)
    assert (entry["tested"], entry["caught"], entry["of_them_timeouts"]) == (4, 2, 1)
    assert entry["caught_share"] == 0.6667
    entry |= {"sampled": True, "seed": 3, "mutants": 90, "seconds": 5.0}
    assert run.describe("x.py", entry).splitlines() == [
        "x.py: 66.7% caught (4 of 90 errors, sampled with seed 3), 5 s",
        "  1: a  ->  c",
        "  1: a  ->  b  accepted: same",
    ]


def test_again_runs_only_what_survived_the_same_command(load, monkeypatch):
    run = load("run")
    monkeypatch.setattr(run, "accepted", lambda source: {})
    first = {"line": 1, "before": "a", "after": "b"}
    earlier = {"command": "x --seed 1", "survivors": [first], "accepted": []}
    survived = run.survivors_of(earlier, "x --seed 1")
    mutants = [SimpleNamespace(line=1, before="a", after=after) for after in "bc"]
    tests = SimpleNamespace(outcome=lambda mutant: "survived", files=[], left_out=[])
    assert run.measure(Path("x.py"), tests, mutants, survived)["survivors"] == [first]
    assert run.survivors_of({}, "x") is None
    with pytest.raises(SystemExit, match="recorded run was `x --seed 1`"):
        run.survivors_of(earlier, "x --seed 2")


def test_accepted_survivors_are_lines_of_the_present_files(load):
    import tomllib

    for entry in tomllib.loads((FOLDER / "accepted.toml").read_text("utf-8"))["survivor"]:
        lines = (ROOT / entry["file"]).read_text(encoding="utf-8").splitlines()
        assert entry["before"] in [line.strip() for line in lines], entry
        assert entry["reason"].strip(), entry


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_each_fork_imports_the_present_source_and_runs_the_fastest_test_first(tmp_path):
    """A loop that never ends is stopped by its processor time."""
    (tmp_path / "test_two.py").write_text(
        "import two\n\ndef test_b():\n    assert two.VALUE == 2\n\n"
        "def test_a():\n    assert two.VALUE\n\ndef test_unknown():\n    assert False\n"
    )
    start = "import worker; worker.LOADED = (); worker.main()"
    job = {
        "arguments": ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "test_two.py"],
        "plugin": "two",
        "known": {"test_two.py::test_a": 1.0, "test_two.py::test_b": 2.0},
        "cpu_s": 0.0,
        "output": str(tmp_path / "output.txt"),
        "durations": str(tmp_path / "durations.json"),
    }
    results = []
    with subprocess.Popen(
        [sys.executable, "-c", start],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{FOLDER}:{tmp_path}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        for text, limit in (("VALUE = 2\n", 0), ("VALUE = 3\n", 0), ("while 1:\n    0\n", 0.5)):
            (tmp_path / "two.py").write_text(text)
            worker.stdin.write(json.dumps(job | {"cpu_s": limit}) + "\n")
            worker.stdin.flush()
            results.append(json.loads(worker.stdout.readline())["code"])
            if len(results) == 1:
                times = json.loads((tmp_path / "durations.json").read_text())
                assert list(times) == ["test_two.py::test_a", "test_two.py::test_b"]
        worker.stdin.close()
    assert results[:2] == [0, 1]
    assert results[2] < 0


SOURCE = '''"""A module."""


def f(x: int | None, *, scale: float = 2.0) -> int | None:
    """Scale."""
    if x == 3:
        return None
    return x.detach().sum(dim=(0, 1)) * scale
'''


def test_errors_change_what_is_computed_once_each(load):
    pytest.importorskip("cosmic_ray")
    mutants, count = load("mutants").mutants_of(SOURCE)
    changes = [(mutant.line, "".join(mutant.after.split())) for mutant in mutants]
    assert count == len(changes) == len(set(changes)) == 12
    assert [after for line, after in changes if line == 6] == ["ifx!=3:", "ifx==2:", "ifx==4:"]
    assert (8, "returnx.sum(dim=(0,1))*scale") in changes
    assert (8, "returnx.detach().mean(dim=(0,1))*scale") in changes
    assert (8, "returnx.detach().sum(dim=(0,1))/scale") in changes
    assert all("None" in mutant.after for mutant in mutants if mutant.line == 4)


def test_a_sample_is_drawn_by_its_seed(load):
    pytest.importorskip("cosmic_ray")
    mutants_of = load("mutants").mutants_of
    (first, count), (again, _), (other, _) = (mutants_of(SOURCE, 5, s) for s in (1, 1, 2))
    assert (len(first), count) == (5, 12)
    assert first == again != other
