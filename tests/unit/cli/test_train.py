from pathlib import Path

import pytest
import yaml

from tag2mask.cli import train
from tag2mask.config.recipe import Recipe, recipe_path
from tag2mask.errors import RecipeError, Tag2MaskError

RECIPE = "cam/animals_hybrid"


@pytest.fixture
def handed(monkeypatch):
    """What the trainer is called with; nothing is trained."""
    calls = []

    def record(recipe: Recipe, out: Path, *, resume: bool = False, command: str = "") -> Path:
        calls.append((recipe, out, resume, command))
        return out

    monkeypatch.setattr("tag2mask.training.trainer.train", record)
    return calls


def test_recipe_overrides_and_command_reach_the_trainer(handed, capsys):
    train.run([RECIPE, "--out", "R", "--optim.steps", "7", "--data.root", "my images"])
    recipe, out, resume, command = handed[0]
    assert recipe.optim.steps == 7
    assert recipe.data.root == Path("my images")
    assert (out, resume) == (Path("R"), False)
    assert command == (f"tag2mask train {RECIPE} --out R --optim.steps 7 --data.root 'my images'")
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
def test_wrong_lines_are_rejected_before_training(line, words, handed):
    with pytest.raises(Tag2MaskError, match=r"^[^\n]*$") as caught:
        train.run(line.split())
    assert words in str(caught.value)
    assert handed == []


def test_help_of_a_recipe_lists_every_key_with_the_recipe_s_value(capsys):
    with pytest.raises(SystemExit):
        train.run([RECIPE, "--optim.steps", "7", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    for text in (
        "--optim.steps INT Optimizer steps in total. (default: 7)",
        "--data.val_split",
        "--backbone.weights",
        "--method.pooling {gap,gmp,",
        "--predict.flip {True,False}",
        "--run.seed",
    ):
        assert text in shown


def test_help_of_a_faulty_override_tells_the_problem():
    with pytest.raises(RecipeError, match=r"unknown option '--optim\.stepz'"):
        train.run([RECIPE, "--optim.stepz", "7", "--help"])


@pytest.fixture
def staged(tmp_path):
    """A recipe file with stages, and a run folder that holds them."""
    raw = yaml.safe_load(recipe_path(RECIPE).read_text("utf-8"))
    raw["stages"] = {"cam": {"run": "train"}, "seed": {"run": "label", "from": "cam"}}
    path = tmp_path / "staged.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    run = tmp_path / "run"
    (run / "cam").mkdir(parents=True)
    for folder in (run, run / "cam"):
        (folder / "recipe.yaml").write_text(path.read_text("utf-8"), "utf-8")
    return path, run


@pytest.fixture
def piped(monkeypatch):
    """What the pipeline is called with; nothing is run."""
    calls = []
    monkeypatch.setattr(
        "tag2mask.pipeline.train",
        lambda recipe, out, *, resume, stage, command, tell: calls.append((out, resume, stage)),
    )
    return calls


def test_all_stages_or_one_are_run(staged, piped, capsys):
    path, run = staged
    train.run([str(path), "--out", "R"])
    assert "trained: R\nnext:    tag2mask label R DATA" in capsys.readouterr().out
    train.run([str(path), "--out", "R", "--stage", "seed"])
    told = f"trained: {Path('R') / 'seed'}\nnext:    tag2mask train --resume R\n"
    assert capsys.readouterr().out == told
    train.run(["--resume", str(run)])
    assert piped == [(Path("R"), False, None), (Path("R"), False, "seed"), (run, True, None)]


def test_the_folder_of_a_stage_is_resumed_as_that_stage(staged, piped):
    _, run = staged
    train.run(["--resume", str(run / "cam")])
    assert piped == [(run, True, "cam")]


def test_help_of_a_recipe_with_stages_lists_them(staged, capsys):
    with pytest.raises(SystemExit):
        train.run([str(staged[0]), "--help"])
    shown = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "Stages: cam (train), seed (label); --stages.NAME.SECTION.KEY sets a key" in shown
