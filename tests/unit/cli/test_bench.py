import json
from pathlib import Path

import pytest

from tag2mask.cli import bench
from tag2mask.errors import Tag2MaskError

SCRIPT = '''"""{title}"""
import json, sys
from pathlib import Path

def comparisons():
    return [dict(what="adding", ours={ours}, reference="loop", theirs=4.0, unit="ms", most=0.5,
                 ratio={ours} / 4)]

out = Path(sys.argv[sys.argv.index("--json") + 1])
out.write_text(json.dumps(dict(threads=2, table=comparisons())))
'''


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with two benchmarks, a failing one and a script that is none."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "fast.py").write_text(SCRIPT.format(title="Adds quickly.", ours=1.0))
    (folder / "slow.py").write_text(SCRIPT.format(title="Adds slowly.", ours=3.0))
    (folder / "quality.py").write_text("raise SystemExit('not a benchmark of speed')\n")
    monkeypatch.setattr(bench, "find_folder", lambda: folder)
    return folder


def test_all_benchmarks_run_and_stand_in_one_table_and_one_file(checkout, tmp_path, capsys):
    bench.run(["--json", str(tmp_path / "all.json")])
    shown = capsys.readouterr()
    rows = [line.replace("\u2502", " ").split() for line in shown.out.splitlines()]
    assert ["fast", "adding", "1.00", "ms", "loop", "4.00", "ms", "0.250", "0.5"] in rows
    assert ["slow", "adding", "3.00", "ms", "loop", "4.00", "ms", "0.750", "0.5"] in rows
    assert "fast: Adds quickly." in shown.err
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["slow"]["table"][0]["ratio"] == 0.75
    assert written["fast"]["threads"] == 2
    assert "quality" not in written


def test_named_benchmarks_run_alone(checkout, capsys):
    bench.run(["slow"])
    assert "fast" not in capsys.readouterr().out


def test_unknown_name_gets_a_hint_before_anything_runs(checkout):
    with pytest.raises(Tag2MaskError, match=r"'slwo'\. Did you mean 'slow'\? Known: fast, slow"):
        bench.run(["fast", "slwo"])


def test_a_benchmark_that_fails_is_one_line_and_the_others_are_told(checkout, capsys):
    (checkout / "broken.py").write_text(
        "def comparisons(): ...\nraise SystemExit('outputs differ')\n"
    )
    with pytest.raises(Tag2MaskError, match=r"^benchmark broken failed: outputs differ$"):
        bench.run([])
    assert "slow" in capsys.readouterr().out


def test_without_a_checkout_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "a" / "b" / "c" / "bench.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Tag2MaskError, match="no folder 'benchmarks' here") as caught:
        bench.run([])
    assert "\n" not in str(caught.value)


def test_this_checkout_has_its_benchmarks():
    folder = Path(__file__).parents[3] / "benchmarks"
    if not folder.is_dir():
        pytest.skip("no checkout")
    assert bench.find_folder() == folder
    found = bench.find_scripts(folder)
    assert {"par", "evaluation"} <= set(found)
    assert not {"row", "seed_quality", "ablation"} & set(found)


@pytest.mark.slow
def test_every_benchmark_of_this_checkout_ends_with_a_record():
    """Not how fast they are: on a busy machine that says nothing."""
    for name, script in bench.find_scripts(bench.find_folder()).items():
        assert bench.run_script(script)["table"], name
