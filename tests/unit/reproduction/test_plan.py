import shlex
from pathlib import Path

import pytest

from tag2mask.cli.command import build_command
from tag2mask.config.overrides import apply_overrides
from tag2mask.config.recipe import recipe_path, stage_recipe
from tag2mask.errors import RecipeError
from tag2mask.io.yaml_files import read_yaml
from tag2mask.reproduction.plan import plan_rows
from tag2mask.reproduction.table import load_table


def plans(table, data="animals", rows=None, seeds=(1,), **overrides):
    loaded = load_table(table)
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return plan_rows(loaded, data, loaded.select_rows(rows), seeds, keys)


def test_rows_run_one_seed_after_another():
    planned = plans("rml_1", rows=["ciml", "apml"], seeds=(3, 1))
    assert [(plan.row_id, plan.seed) for plan in planned] == [
        ("ciml", 3),
        ("apml", 3),
        ("ciml", 1),
        ("apml", 1),
    ]
    assert [plan.recipe.run.seed for plan in planned] == [3, 3, 1, 1]


def test_a_rows_own_changes_win_over_the_users():
    (plan,) = plans("rml_1", rows=["ciml"], method__mfml="0.5", method__ciml="0.2")
    assert (plan.recipe.method.mfml, plan.recipe.method.ciml) == (0, 0.2)


def test_rows_that_train_the_same_network_share_its_folder():
    apml, crf = plans("rml_1", rows=["apml", "crf"])
    assert apml.run_name == crf.run_name
    assert apml.scores_name(None) != crf.scores_name(None)
    (mfml,) = plans("rml_1", rows=["mfml"])
    assert mfml.run_name != apml.run_name


def test_paths_and_intervals_do_not_change_the_folder_but_settings_do():
    (plan,) = plans("rml_1", rows=["apml"])
    (moved,) = plans("rml_1", rows=["apml"], data__root="elsewhere", run__workers="3")
    (longer,) = plans("rml_1", rows=["apml"], optim__steps="100")
    (seeded,) = plans("rml_1", rows=["apml"], seeds=(2,))
    assert plan.run_name == moved.run_name
    assert len({plan.run_name, longer.run_name, seeded.run_name}) == 3
    assert plan.scores_name(None) != plan.scores_name(100)


def test_the_printed_command_trains_the_same_recipe():
    (plan,) = plans("rml_3", "voc", ["onestage"], optim__steps="600", data__root="a b")
    _, command, *words = shlex.split(plan.train_command(Path("RUN")))
    context = build_command(command).make_context("tag2mask train", words)
    raw = read_yaml(recipe_path(context.params["target"]))
    assert apply_overrides(raw, context.obj.overrides, "x") == plan.recipe
    assert plan.recipe.method.mask_from == 125  # 3,307 of 15,873 steps


def test_stages_are_those_that_the_scored_one_needs():
    assert plans("rml_1", rows=["apml"])[0].stages == []
    assert plans("compared", rows=["psa"])[0].stages == ["cam", "confident", "psa"]
    assert plans("aeft_1", rows=["aeft"])[0].stages == ["cam"]


def test_lengths_of_stages_follow_the_users_steps():
    (plan,) = plans("compared", rows=["recam"], optim__steps="60")
    assert stage_recipe(plan.recipe, "recam").optim.steps == 20
    (plan,) = plans("compared", rows=["psa"], optim__steps="60")
    assert stage_recipe(plan.recipe, "cam").optim.steps == 60


def test_changes_of_inference_do_not_change_what_is_trained():
    cam, advcam = plans("compared", rows=["gap_256", "advcam"])
    assert cam.run_name == advcam.run_name
    recipe = advcam.inference_recipe(advcam.recipe)
    assert (recipe.method.name, recipe.predict.long_side_px) == ("advcam", 256)


@pytest.mark.parametrize(
    ("data", "keys", "message"),
    [
        ("animal", {}, "no row of this table runs on it. Did you mean 'animals'"),
        ("animals", {"method.warmup": "3000"}, "these losses never start"),
        ("animals", {"method.warm_up": "0.1"}, "unknown key 'method.warm_up'"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(data, keys, message):
    table = load_table("rml_1")
    with pytest.raises(RecipeError) as caught:
        plan_rows(table, data, list(table.rows), [1], keys)
    assert message in str(caught.value)


def test_a_wrong_stage_or_inference_setting_is_found_before_anything_is_trained(tmp_path):
    text = "title: T\nsource: S\ndata: D\nrows: {a: {}}\nruns: {animals: {recipe: %s}}"
    for recipe, message in (
        ("recam/animals_mobilenet, stage: cams", "no stage 'cams' trains. Did you mean 'cam'"),
        ("cam/animals_mobilenet, inference: refiner=pa", "unknown refiner 'pa'"),
    ):
        path = tmp_path / "t.yaml"
        path.write_text(text % recipe, encoding="utf-8")
        with pytest.raises(RecipeError) as caught:
            plan_rows(load_table(str(path)), "animals", ["a"], [1], {})
        assert message in str(caught.value)
