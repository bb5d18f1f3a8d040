import pytest

from tag2mask import plugins
from tag2mask.cli.main import run
from tag2mask.config.recipe import available_recipes
from tag2mask.errors import RecipeError, Tag2MaskError


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("methods", plugins.available("methods")),
        ("refiners", plugins.available("refiners")),
        ("backbones", plugins.available("models.backbones")),
        ("formats", plugins.available("formats") + plugins.available("formats.models")),
        ("recipes", available_recipes()),
    ],
)
def test_each_name_is_one_line_with_a_summary(what, names, capsys):
    run(["list", what])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names
    assert all(len(line.split()) > 2 for line in lines)


def test_recipes_state_what_to_expect(capsys):
    run(["list", "recipes"])
    assert all("Expect: " in line for line in capsys.readouterr().out.splitlines())


def test_keys_come_with_value_type_and_meaning(capsys):
    run(["list", "keys", "rml/voc_mitb1", "optim.lr=0.5", "predict.flip=no"])
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    row = next(index for index, line in enumerate(lines) if line.startswith("  optim.lr="))
    assert lines[row].split(maxsplit=1) == ["optim.lr=0.5", "number, > 0"]
    assert lines[row + 1].strip().startswith("Learning rate of pretrained weights.")
    assert "  predict.flip=false" in shown
    assert "  method.ciml=" in shown
    assert max(map(len, lines)) < 200


def test_keys_include_what_each_stage_sets(capsys):
    run(["list", "keys", "cam/synthetic_stages"])
    assert "  stages.seg.method.name=supervised\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("method", Tag2MaskError, r"'method' is not one of .* Did you mean 'methods'\?"),
        ("keys", RecipeError, "missing: RECIPE"),
        ("keys rml/voc_mitb", RecipeError, r"Did you mean 'rml/voc_mitb1'\?"),
        ("keys rml/voc_mitb1 optim.stepz=1", RecipeError, r"Did you mean 'steps'\?"),
        ("methods rml", RecipeError, "unexpected word 'rml'"),
        ("methods optim.lr=1", RecipeError, "unexpected word 'optim.lr'"),
    ],
)
def test_wrong_line_is_rejected(line, kind, words):
    with pytest.raises(kind, match=words):
        run(["list", *line.split()])
