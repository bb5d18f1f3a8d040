"""From a folder of tagged images to masks, from the command line, without a recipe."""

import json
import shlex

import pytest

from tag2mask.cli.main import main
from tag2mask.config.recipe import load_recipe
from tag2mask.data.synthetic import SyntheticConfig, write_scenes

QUICK = ["optim.steps=2", "optim.batch_size=2", "run.workers=0", "run.samples=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "my images"
    write_scenes(SyntheticConfig(count=24, val_count=1, size_px=64), root)
    return root


def test_a_folder_is_trained_and_labeled_by_the_printed_commands(data, tmp_path, capfd):
    run = tmp_path / "run"
    assert main(["train", str(data), "--out", str(run), *QUICK]) == 0
    out = capfd.readouterr().out.splitlines()
    program, *words = shlex.split(out[-1].removeprefix("next:"))
    assert program == "tag2mask"
    assert main([*words, "predict.scales=1.0", "predict.flip=false"]) == 0
    masks = tmp_path / "run_masks"
    assert len(list(masks.rglob("*.png"))) == 25
    assert json.loads((masks / "classes.json").read_text("utf-8"))["classes"]


def test_init_writes_the_recipe_that_train_uses(data, tmp_path, capfd):
    path, run, direct = tmp_path / "mine.yaml", tmp_path / "mine_run", tmp_path / "direct"
    assert main(["init", str(data), "--out", str(path), *QUICK]) == 0
    _, *words = shlex.split(capfd.readouterr().out.splitlines()[-1].removeprefix("next:"))
    assert main(words) == 0
    assert main(["train", str(data), "--out", str(direct), *QUICK]) == 0
    recipes = [load_recipe(str(folder / "recipe.yaml")).plain() for folder in (run, direct)]
    assert recipes[0] == recipes[1]


@pytest.mark.slow
def test_more_images_go_on_from_a_run(data, tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", str(data), "--out", str(first), "data.classes=beetle,board", *QUICK]) == 0
    words = ["--from", str(first), "--out", str(second), "data.classes=board,flag"]
    assert main(["train", str(data), *words, *QUICK]) == 0
    assert "classes kept: board; new: flag; no longer learned: beetle" in capfd.readouterr().err
