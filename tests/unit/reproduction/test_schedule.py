import pytest

from tag2mask.config.overrides import apply_overrides
from tag2mask.config.recipe import load_recipe
from tag2mask.errors import RecipeError
from tag2mask.reproduction.schedule import (
    reject_losses_that_never_start,
    scale_schedule,
    scale_stage_steps,
)


def changed(name, **overrides):
    before = load_recipe(name)
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return before, apply_overrides(before.plain(), keys, name), keys


def test_points_counted_in_steps_keep_their_share_of_the_training():
    points = {"method.warmup": "2000", "method.propagate_from": "6000", "optim.warmup": "1500"}
    before = apply_overrides(load_recipe("afa/voc_mitb1").plain(), points, "x")  # 20,000 steps
    short = {"optim.steps": "2000"}
    scaled = scale_schedule(before, apply_overrides(before.plain(), short, "x"), short)
    assert scaled == {
        "method.warmup": "200",
        "method.propagate_from": "600",
        "optim.warmup": "150",
    }


def test_fractions_and_unchanged_lengths_need_no_change():
    assert scale_schedule(*changed("rml/animals_hybrid", optim__steps="600")) == {}
    assert scale_schedule(*changed("onestage/voc_resnet38d", optim__lr="1e-4")) == {}


def test_a_point_that_was_set_on_purpose_stays():
    name = "onestage/voc_resnet38d"
    assert scale_schedule(*changed(name, optim__steps="600")) == {"method.mask_from": "125"}
    fixed = changed(name, optim__steps="600", method__mask_from="10")
    assert scale_schedule(*fixed) == {}


def test_each_stage_has_its_own_length():
    scaled = scale_schedule(*changed("aeft/voc_resnet38d", stages__psa__optim__steps="5288"))
    assert {key for key in scaled if not key.startswith("stages.psa.")} == set()
    before, after, keys = changed("aeft/voc_resnet38d", optim__steps="3106")
    scaled = scale_schedule(before, after, keys)
    assert scaled["stages.cam.method.start"] == "2380"  # 23,796 of 31,056
    assert scaled["stages.cam.optim.late_from"] == "2380"
    assert scaled["stages.cam.optim.decay_steps"] == "5289"
    assert "stages.seg.optim.late_from" not in scaled  # its own length has not changed


def test_lengths_of_stages_follow_the_length_of_the_recipe():
    recipe = load_recipe("recam/animals_mobilenet")  # 2,400 steps, its last stage 800
    assert scale_stage_steps(recipe, 600, {}) == {"stages.recam.optim.steps": "200"}
    assert scale_stage_steps(recipe, 600, {"stages.recam.optim.steps": "7"}) == {}
    assert scale_stage_steps(load_recipe("cam/animals_mobilenet"), 600, {}) == {}


def test_losses_that_never_start_are_rejected():
    _, recipe, _ = changed("rml/voc_mitb1", optim__steps="600", method__warmup="2000")
    with pytest.raises(RecipeError, match=r"row 'x': method\.warmup=2000 is not before the end"):
        reject_losses_that_never_start(recipe, "row 'x'")
    reject_losses_that_never_start(load_recipe("rml/voc_mitb1"), "row 'x'")
    reject_losses_that_never_start(load_recipe("aeft/voc_resnet38d"), "row 'x'")
