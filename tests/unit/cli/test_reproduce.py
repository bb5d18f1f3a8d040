import pytest

from tag2mask.cli.main import run
from tag2mask.errors import RecipeError, Tag2MaskError


def test_without_a_table_the_tables_are_listed(capsys):
    run(["reproduce"])
    lines = capsys.readouterr().out.splitlines()
    assert "rml_1" in {line.split()[0] for line in lines}


def test_options_reach_the_plan(capsys, tmp_path):
    options = ["--data", "animals", "--rows", "ciml, crf", "--seeds", "3,1", "--dry-run"]
    run(["reproduce", "rml_1", *options, "--out", str(tmp_path), "optim.steps=70"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in lines[::2]] == [
        "ciml, seed 3",
        "crf, seed 3",
        "ciml, seed 1",
        "crf, seed 1",
    ]
    assert all("optim.steps=70" in line and f"{tmp_path}/runs/" in line for line in lines[1::2])


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("rml_1", Tag2MaskError, "missing: --data NAME"),
        ("rml_9 --data voc", RecipeError, "unknown table 'rml_9'"),
        ("rml_1 --data coco", RecipeError, "no row of this table runs on it"),
        ("rml_1 --data voc --rows cimm", RecipeError, "Did you mean 'ciml'"),
        ("rml_1 --data voc --seeds one", Tag2MaskError, "--seeds one: give whole numbers"),
        ("rml_1 --data voc --limit 0", Tag2MaskError, "--limit"),
        ("rml_1 --data voc method.warmup=18000", RecipeError, "these losses never start"),
    ],
)
def test_wrong_lines_are_rejected_before_anything_runs(line, kind, words, tmp_path):
    with pytest.raises(kind, match=words):
        run(["reproduce", *line.split(), "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
