from pathlib import Path

import pytest

from tag2mask.cli import train
from tag2mask.errors import RecipeError, Tag2MaskError
from tag2mask.recipe import Recipe

RECIPE = "cam/animals_hybrid"


@pytest.fixture
def handed(monkeypatch):
    """What the trainer is called with; nothing is trained."""
    calls = []

    def record(recipe: Recipe, out: Path, *, resume: bool = False, command: str = "") -> Path:
        calls.append((recipe, out, resume, command))
        return out

    monkeypatch.setattr("tag2mask.engine.trainer.train", record)
    return calls


def test_recipe_overrides_and_command_reach_the_trainer(handed, capsys):
    train.run([RECIPE, "--out", "R", "--optim.steps", "7", "--data.root", "my photos"])
    recipe, out, resume, command = handed[0]
    assert recipe.optim.steps == 7
    assert recipe.data.root == Path("my photos")
    assert (out, resume) == (Path("R"), False)
    assert command == (f"tag2mask train {RECIPE} --out R --optim.steps 7 --data.root 'my photos'")
    assert "tag2mask label R DATA" in capsys.readouterr().out


def test_resume_needs_no_recipe_and_no_out(handed, tmp_path):
    train.run([RECIPE, "--out", str(tmp_path), "--optim.steps", "7"])
    (tmp_path / "recipe.yaml").write_text(handed[0][0].to_yaml(), encoding="utf-8")
    train.run(["--resume", str(tmp_path), "--run.workers", "0"])
    recipe, out, resume, _ = handed[1]
    assert (recipe.optim.steps, recipe.run.workers) == (7, 0)
    assert (out, resume) == (tmp_path, True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "missing: RECIPE"),
        ("--out R", "missing: RECIPE"),
        (RECIPE, "missing: --out"),
        (f"{RECIPE} --out A --resume B", "--out A and --resume B name two run folders"),
        (f"{RECIPE} --out R --steps 3", "Did you mean --optim.steps?"),
        (f"{RECIPE} --out R --ouy S", "Did you mean 'out'?"),
        (f"{RECIPE} --out R other", "other"),
    ],
)
def test_wrong_lines_are_refused_before_training(line, words, handed):
    with pytest.raises(Tag2MaskError, match=r"^[^\n]*$") as caught:
        train.run(line.split())
    assert words in str(caught.value)
    assert handed == []


def test_help_of_a_recipe_lists_every_key_with_the_recipe_s_value(capsys):
    with pytest.raises(SystemExit):
        train.run([RECIPE, "--optim.steps", "7", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    for text in (
        "--optim.steps INT Optimiser steps in total. (default: 7)",
        "--data.val_split",
        "--backbone.weights",
        "--method.pooling {gap,gmp}",
        "--predict.flip {True,False}",
        "--run.seed",
    ):
        assert text in shown


def test_help_of_a_faulty_override_tells_the_fault():
    with pytest.raises(RecipeError, match=r"unknown option '--optim\.stepz'"):
        train.run([RECIPE, "--optim.stepz", "7", "--help"])
