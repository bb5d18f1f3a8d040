"""What the functions accept; the examples (tests/integration/test_examples.py) run them."""

import numpy as np
import pytest

import tag2mask
from tag2mask import api
from tag2mask.config.recipe import load_recipe
from tag2mask.data.synthetic import SyntheticConfig, write_scenes
from tag2mask.errors import RecipeError, RunError
from tag2mask.io.masks import save_mask


@pytest.fixture
def trained(monkeypatch):
    """Record the calls of the pipeline and train nothing."""
    calls = []
    monkeypatch.setattr(
        api.pipeline, "train", lambda recipe, out, **options: calls.append((recipe, out, options))
    )
    return calls


def test_overrides_have_python_values(trained, tmp_path):
    overrides = {"optim.steps": 30, "predict.scales": [1.0, 0.5], "predict.flip": False}
    tag2mask.train("cam/synthetic_tiny", tmp_path, overrides=overrides)
    ((recipe, out, _),) = trained
    assert (recipe.optim.steps, recipe.predict.scales, recipe.predict.flip) == (
        30,
        (1.0, 0.5),
        False,
    )
    assert out == tmp_path


def test_a_refiner_can_be_removed(trained, tmp_path):
    tag2mask.train("cam/synthetic_tiny", tmp_path, overrides={"refiner.name": None})
    assert trained[0][0].refiner is None


def test_a_built_recipe_and_a_file_mean_the_same(trained, tmp_path):
    recipe = load_recipe("cam/synthetic_tiny")
    (tmp_path / "own.yaml").write_text(recipe.to_yaml())
    tag2mask.train(recipe, tmp_path / "run")
    tag2mask.train(tmp_path / "own.yaml", str(tmp_path / "run"))
    assert trained[0][0].plain() == trained[1][0].plain() == recipe.plain()
    assert trained[0][1] == trained[1][1]


def test_a_folder_gets_a_fitted_recipe(trained, tmp_path):
    write_scenes(SyntheticConfig(count=30, val_count=1, size_px=64), tmp_path)
    tag2mask.train(tmp_path, "run", overrides={"optim.steps": 7})
    recipe = trained[0][0]
    assert (recipe.method.name, recipe.optim.steps, recipe.data.root) == ("rml", 7, tmp_path)


def test_a_mistyped_override_gets_a_hint(trained, tmp_path):
    with pytest.raises(RecipeError, match=r"Did you mean '?(optim\.)?steps"):
        tag2mask.train("cam/synthetic_tiny", tmp_path, overrides={"optim.stepz": 3})
    assert trained == []


def test_a_missing_run_is_one_line(tmp_path):
    with pytest.raises(RunError, match=r"^\S*nothing: [^\n]*$"):
        tag2mask.label(tmp_path / "nothing", tmp_path, tmp_path / "out")
    with pytest.raises(RunError, match=r"^\S*nothing: [^\n]*$"):
        tag2mask.predict(tmp_path / "nothing", [tmp_path], tmp_path / "out")


def test_masks_of_a_run_with_stages_are_those_of_its_last_label_stage(tmp_path):
    raw = load_recipe("cam/synthetic_stages")
    (tmp_path / "recipe.yaml").write_text(raw.to_yaml())
    masks = [name for name, stage in raw.stages.items() if stage.run == "label"][-1]
    for folder in (tmp_path / masks, tmp_path / "truth"):
        folder.mkdir()
        save_mask(np.array([[0, 1]], dtype=np.uint8), folder / "a.png")
    assert tag2mask.evaluate(tmp_path, tmp_path / "truth", class_names=["cat"]).miou == 1.0
