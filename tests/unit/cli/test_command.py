import shlex

import pytest

from tag2mask.cli.command import build_command, help_text, recipe_schema
from tag2mask.cli.main import COMMANDS, run
from tag2mask.config.keys import annotation_at
from tag2mask.config.overrides import apply_overrides
from tag2mask.config.recipe import (
    Recipe,
    available_recipes,
    load_recipe,
    recipe_path,
)
from tag2mask.config.stages import SECTIONS
from tag2mask.errors import RecipeError
from tag2mask.io.yaml_files import read_yaml

LINES = [
    line.strip() for name in COMMANDS for line in build_command(name).examples.splitlines() if line
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_two_screens_and_ends_with_examples(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        run([name, "--help"])
    assert not stop.value.code
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 100
    examples = lines[lines.index("Examples:") + 1 :]
    assert examples
    assert all(
        line.startswith(f"  tag2mask {name} ") or name in ("demo", "convert", "reproduce")
        for line in examples
    )


@pytest.mark.parametrize("line", LINES)
def test_example_is_a_line_that_its_command_takes(line):
    _, name, *words = shlex.split(line.partition(" | ")[0])
    command = build_command(name)
    context = command.make_context(name, words)
    assert context.params
    if command.sections:
        named = next((word for word in words if word in available_recipes()), "cam/synthetic_tiny")
        assert apply_overrides(read_yaml(recipe_path(named)), context.obj.overrides, named)


def test_keys_and_line_reach_the_command():
    command = build_command("train")
    words = ["rml/synthetic_tiny", "method=cam", "data.crop-px=64", "--out", "my run"]
    line = command.make_context("tag2mask train", words).obj
    assert line.command == (
        "tag2mask train rml/synthetic_tiny method=cam data.crop-px=64 --out 'my run'"
    )
    assert line.overrides == {"method.name": "cam", "data.crop_px": "64"}


def test_every_key_of_a_section_that_training_fixed_is_rejected():
    with pytest.raises(RecipeError) as caught:
        run(["label", "R", "D", "--out", "O", "optim.lr=1", "predict.flip=no", "run.seed=2"])
    takes = "predict.KEY, refiner.KEY, data.KEY, method.KEY, backbone.KEY"
    assert str(caught.value).splitlines() == [
        f"optim.lr: is fixed by training; 'label' takes {takes}",
        f"run.seed: is fixed by training; 'label' takes {takes}",
    ]


@pytest.mark.parametrize("name", ["train", "list"])
def test_commands_for_recipes_take_all_sections(name):
    assert set(build_command(name).sections) == {*SECTIONS, "run", "stages"}


def test_hints_know_the_keys_of_the_named_recipe(tmp_path):
    assert annotation_at(recipe_schema(["rml/voc_mitb1"]), ["backbone", "variant"]) is not None
    (tmp_path / "recipe.yaml").write_text(load_recipe("rml/synthetic_tiny").to_yaml(), "utf-8")
    assert annotation_at(recipe_schema([str(tmp_path)]), ["method", "ciml"]) is not None
    assert recipe_schema(["gone"]) is Recipe
    assert recipe_schema([]) is Recipe


def test_the_lines_of_a_paragraph_are_joined_and_paragraphs_stay_apart():
    assert (
        help_text("One line\n    and its rest.\n\n    Two.\n") == "One line and its rest.\n\nTwo."
    )
