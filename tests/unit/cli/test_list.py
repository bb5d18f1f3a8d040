import pytest

from tag2mask import plugins
from tag2mask.cli import list as list_verb
from tag2mask.config.recipe import available_recipes
from tag2mask.errors import Tag2MaskError


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("methods", plugins.available("methods")),
        ("refiners", plugins.available("refiners")),
        ("backbones", plugins.available("models.backbones")),
        ("recipes", available_recipes()),
    ],
)
def test_each_name_stands_on_its_line_with_a_summary(what, names, capsys):
    list_verb.run([what])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names
    assert all(len(line.split()) > 2 for line in lines)


def test_recipes_say_what_to_expect(capsys):
    list_verb.run(["recipes"])
    assert all("Expect: " in line for line in capsys.readouterr().out.splitlines())


def test_unknown_kind_is_rejected():
    with pytest.raises(Tag2MaskError, match=r"'method' .*Expected one of"):
        list_verb.run(["method"])
