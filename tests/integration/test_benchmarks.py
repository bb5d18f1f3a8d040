"""`make bench` runs every benchmark, reports failures in one line and updates results files."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from tag2mask.errors import Tag2MaskError
from tag2mask.reproduction.table import available_tables

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs a checkout")

SCRIPT = '''"""{title}"""
import json, sys
from pathlib import Path

def comparisons():
    return [dict(case="adding", ours={ours}, reference="loop", reference_value=4.0, unit="ms",
                 max_ratio=0.5, ratio={ours} / 4)]

out = Path(sys.argv[sys.argv.index("--json") + 1])
out.write_text(json.dumps(dict(threads=2, table=comparisons())))
'''


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in ("run", "row")}
    sys.path.remove(str(FOLDER))


@pytest.fixture
def bench(modules):
    return modules["run"]


@pytest.fixture
def checkout(bench, tmp_path, monkeypatch):
    """A folder with two benchmarks and a script that is not a benchmark."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "fast.py").write_text(SCRIPT.format(title="Adds quickly.", ours=1.0))
    (folder / "slow.py").write_text(SCRIPT.format(title="Adds slowly.", ours=3.0))
    (folder / "quality.py").write_text("raise SystemExit('not a benchmark of speed')\n")
    monkeypatch.setattr(bench, "FOLDER", folder)
    return folder


def test_all_benchmarks_appear_in_one_table_and_one_file(bench, checkout, tmp_path, capsys):
    bench.run([], tmp_path / "all.json")
    shown = capsys.readouterr()
    rows = [line.replace("\u2502", " ").split() for line in shown.out.splitlines()]
    assert ["fast", "adding", "1.00", "ms", "loop", "4.00", "ms", "0.250", "0.5"] in rows
    assert ["slow", "adding", "3.00", "ms", "loop", "4.00", "ms", "0.750", "0.5"] in rows
    assert "fast: Adds quickly." in shown.err
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["slow"]["table"][0]["ratio"] == 0.75
    assert written["slow"]["command"] == "python benchmarks/slow.py"
    assert written["fast"]["threads"] == 2
    assert set(written) == {"fast", "slow"}


def test_only_named_benchmarks_run_and_other_entries_are_kept(bench, checkout, tmp_path, capsys):
    (tmp_path / "speed.json").write_text('{"fast": {"table": []}, "slow": {"old": 1}}')
    bench.run(["slow"], tmp_path / "speed.json")
    assert "fast" not in capsys.readouterr().out
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written["fast"] == {"table": []}
    assert written["slow"]["threads"] == 2
    assert "old" not in written["slow"]


def test_an_unknown_name_is_rejected_with_a_hint_before_anything_runs(bench, checkout):
    with pytest.raises(Tag2MaskError, match=r"'slwo'\. Did you mean 'slow'\? Known: fast, slow"):
        bench.run(["fast", "slwo"], None)


def test_a_failed_benchmark_is_reported_in_one_line_after_the_table_of_the_others(
    bench, checkout, capsys
):
    (checkout / "broken.py").write_text(
        "def comparisons(): ...\nraise SystemExit('outputs differ')\n"
    )
    with pytest.raises(Tag2MaskError, match=r"^benchmark broken failed: outputs differ$"):
        bench.run([], None)
    assert "slow" in capsys.readouterr().out


def test_quality_scripts_are_not_speed_benchmarks(bench):
    scripts = bench.find_scripts(FOLDER)
    assert {"par", "evaluation"} <= set(scripts)
    assert not {"row", "run", "score_run"} & set(scripts)


def test_an_entry_is_read_back_as_written(modules, tmp_path):
    entry = {"command": "python x.py --set 'a=[1, 2]'", "iou": [0.5, 0.25], "rows": [{"n": []}]}
    modules["row"].add_entry(tmp_path / "r.json", "a", entry)
    modules["row"].add_entry(tmp_path / "r.json", "b", {"words": ["a]", "[b", "c d"]})
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text) == {"a": entry, "b": {"words": ["a]", "[b", "c d"]}}
    assert '"iou": [ 0.5, 0.25 ]' in text


def test_every_results_entry_names_its_command():
    for path in sorted((FOLDER / "results").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for entry in [content] if "command" in content else content.values():
            commands = entry.get("replaced_by", entry["command"])  # of the present repository
            for words in map(str.split, commands.split(";")):
                if words[:2] == ["tag2mask", "reproduce"]:
                    assert words[2] in available_tables(), (path, commands)
                else:
                    script = words[1] if words[0] == "python" else words[0]
                    if script == "-m":
                        script = words[2].replace(".", "/") + ".py"
                    assert (FOLDER.parent / script).is_file(), (path, commands)


@pytest.mark.long
def test_every_benchmark_writes_a_record(bench):
    """Times are not checked: on a busy machine they mean nothing."""
    for name, script in bench.find_scripts(FOLDER).items():
        assert bench.run_script(script)["table"], name
