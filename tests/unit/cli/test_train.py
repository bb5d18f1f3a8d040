from pathlib import Path

import pytest
import yaml

from tag2mask.cli.main import run
from tag2mask.config.recipe import Recipe, load_recipe, recipe_path
from tag2mask.data.synthetic import SyntheticConfig, write_scenes
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
    assert "next:    tag2mask label R 'my images' --out R_masks\n" in capsys.readouterr().out


def test_a_folder_gets_a_fitted_recipe(trainer_calls, tmp_path, capsys):
    data = tmp_path / "my images"
    write_scenes(SyntheticConfig(count=30, val_count=1, size_px=64), data)
    run(["train", str(data), "--out", "R", "optim.steps=7"])
    recipe = trainer_calls[0][0]
    assert (recipe.method.name, recipe.optim.steps, recipe.data.crop_px) == ("rml", 7, 64)
    assert recipe.data.root == data
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"data:   {data}: ")
    assert last == f"next:    tag2mask label R '{data}' --out R_masks"
    run(["train", str(data), "--recipe", "cam/own_defects", "--out", "R"])
    assert trainer_calls[1][0].method.name == "cam"


def test_a_run_can_start_from_another(trainer_calls, tmp_path):
    (tmp_path / "recipe.yaml").write_text(load_recipe("cam/synthetic_tiny").to_yaml(), "utf-8")
    data = tmp_path / "data"
    write_scenes(SyntheticConfig(count=30, val_count=1, size_px=64), data)
    run(["train", str(data), "--from", str(tmp_path), "--out", "R"])
    run(["train", "cam/synthetic_tiny", "--from", str(tmp_path), "--out", "R"])
    for recipe, *_ in trainer_calls:
        assert (recipe.backbone.name, recipe.run.weights_from) == ("tiny", str(tmp_path))
    assert [recipe.data.name for recipe, *_ in trainer_calls] == ["folder", "synthetic"]


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
        ("", "missing: DATA"),
        ("--out R", "missing: DATA"),
        (RECIPE, "missing: --out"),
        (f"{RECIPE} --out A --resume B", "--out A and --resume B name two run folders"),
        (f"{RECIPE} --out R --steps 3", "Did you mean optim.steps=3"),
        (f"{RECIPE} --out R --ouy S", "Did you mean '--out'?"),
        (f"{RECIPE} --out R other", "unexpected words: other"),
        (f"{RECIPE} --out R --minutes 5", "--minutes: needs a folder of images"),
        ("--resume R --from S", "--resume R: takes recipe, images and weights from the run"),
        ("src --resume R", "--resume R: takes recipe, images and weights from the run"),
        ("src --out src/run", "--out src/run: lies in the folder of images src"),
    ],
)
def test_wrong_lines_are_rejected_before_training(
    line, words, trainer_calls, tmp_path, monkeypatch
):
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
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
    assert "trained: R\nnext:    tag2mask label R DATA --out R_masks" in capsys.readouterr().out
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
