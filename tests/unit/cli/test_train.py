from pathlib import Path

import pytest
import yaml

from tag2mask.cli.main import run
from tag2mask.config.recipe import Recipe, recipe_path
from tag2mask.errors import Tag2MaskError

RECIPE = "cam/animals_hybrid"


@pytest.fixture
def trainer_calls(monkeypatch):
    """Record the calls of the trainer; nothing is trained."""
    calls = []

    def record(recipe: Recipe, out: Path, *, resume: bool, command: str, on_step: object) -> Path:
        assert on_step is None
        calls.append((recipe, out, resume, command))
        return out

    monkeypatch.setattr("tag2mask.training.trainer.train", record)
    return calls


def test_recipe_overrides_and_command_reach_the_trainer(trainer_calls, capsys):
    run(["train", RECIPE, "--out", "R", "optim.steps=7", "data.root=my images"])
    recipe, out, resume, command = trainer_calls[0]
    assert recipe.optim.steps == 7
    assert recipe.data.root == Path("my images")
    assert (out, resume) == (Path("R"), False)
    assert command == f"tag2mask train {RECIPE} --out R optim.steps=7 'data.root=my images'"
    assert "tag2mask label R DATA" in capsys.readouterr().out


def test_resume_needs_no_recipe_and_no_out(trainer_calls, tmp_path):
    run(["train", RECIPE, "--out", str(tmp_path), "optim.steps=7"])
    (tmp_path / "recipe.yaml").write_text(trainer_calls[0][0].to_yaml(), encoding="utf-8")
    run(["train", "--resume", str(tmp_path), "run.workers=0"])
    recipe, out, resume, _ = trainer_calls[1]
    assert (recipe.optim.steps, recipe.run.workers) == (7, 0)
    assert (out, resume) == (tmp_path, True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "missing: RECIPE"),
        ("--out R", "missing: RECIPE"),
        (RECIPE, "missing: --out"),
        (f"{RECIPE} --out A --resume B", "--out A and --resume B name two run folders"),
        (f"{RECIPE} --out R --steps 3", "Did you mean optim.steps=3"),
        (f"{RECIPE} --out R --ouy S", "Did you mean '--out'?"),
        (f"{RECIPE} --out R other", "unexpected words: other"),
    ],
)
def test_wrong_lines_are_rejected_before_training(line, words, trainer_calls):
    with pytest.raises(Tag2MaskError, match=r"^[^\n]*$") as caught:
        run(["train", *line.split()])
    assert words in str(caught.value)
    assert trainer_calls == []


@pytest.fixture
def staged(tmp_path):
    """A recipe file with stages, and a run folder that contains them."""
    raw = yaml.safe_load(recipe_path(RECIPE).read_text("utf-8"))
    raw["stages"] = {"cam": {"run": "train"}, "seed": {"run": "label", "from": "cam"}}
    path = tmp_path / "staged.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    folder = tmp_path / "run"
    (folder / "cam").mkdir(parents=True)
    for part in (folder, folder / "cam"):
        (part / "recipe.yaml").write_text(path.read_text("utf-8"), "utf-8")
    return path, folder


@pytest.fixture
def pipeline_calls(monkeypatch):
    """Record the calls of the pipeline; nothing is run."""
    calls = []
    monkeypatch.setattr(
        "tag2mask.pipeline.train",
        lambda recipe, out, *, resume, stage, command, notify: calls.append((out, resume, stage)),
    )
    return calls


def test_all_stages_or_one_run(staged, pipeline_calls, capsys):
    path, folder = staged
    run(["train", str(path), "--out", "R"])
    assert "trained: R\nnext:    tag2mask label R DATA" in capsys.readouterr().out
    run(["train", str(path), "--out", "R", "--stage", "seed"])
    shown = f"trained: {Path('R') / 'seed'}\nnext:    tag2mask train --resume R\n"
    assert capsys.readouterr().out == shown
    run(["train", "--resume", str(folder)])
    assert pipeline_calls == [
        (Path("R"), False, None),
        (Path("R"), False, "seed"),
        (folder, True, None),
    ]


def test_folder_of_a_stage_resumes_that_stage(staged, pipeline_calls):
    _, folder = staged
    run(["train", "--resume", str(folder / "cam")])
    assert pipeline_calls == [(folder, True, "cam")]
