"""The masks that are compared are the masks that a user gets with the same settings."""

from tag2mask.config.recipe import load_recipe, parse_recipe
from tag2mask.inference.candidate_settings import (
    MaskMaker,
    MaskSetting,
    mask_settings,
    present_setting,
)
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.tuned import with_changes
from tag2mask.methods.build import build_method


def changed(segmenter, setting):
    recipe = with_changes(segmenter.recipe, setting.changes(segmenter.recipe), "test")
    return type(segmenter)(segmenter.method, recipe, "cpu")


def test_every_setting_makes_the_masks_that_its_changes_give(segmenter, source):
    settings = mask_settings(segmenter, slow=False)
    wanted = [one for one in settings if one.background in (None, 0.2, 0.45)]
    sample = source[1]
    output = segmenter.run_network(sample.image, sample.tags)
    made = dict(MaskMaker(segmenter, wanted).masks(sample, output, (1,)))
    assert sorted(made) == list(range(len(wanted)))
    for index, setting in enumerate(wanted):
        user = changed(segmenter, setting)
        assert present_setting(user) == setting
        expected = user.label(sample.image, ["cow"]).mask
        assert (made[index].numpy() != expected).mean() < 0.02, setting  # bf16, ties
    assert len({mask.numpy().tobytes() for mask in made.values()}) > 3


def test_the_present_setting_comes_first_and_slow_refiners_must_be_asked_for(segmenter):
    settings = mask_settings(segmenter, slow=False)
    assert settings[0] == present_setting(segmenter)
    assert len(set(settings)) == len(settings)
    names = {one.refiner.name for one in settings if one.refiner is not None}
    assert "par" in names
    assert "dense_crf" not in names
    assert not any(one.crf for one in settings)
    slow = mask_settings(segmenter, slow=True)
    assert any(one.crf for one in slow)
    assert "dense_crf" in {one.refiner.name for one in slow if one.refiner is not None}


def test_changes_name_only_what_differs(segmenter):
    recipe = segmenter.recipe
    assert present_setting(segmenter).changes(recipe)["predict"].keys() <= {"refine", "background"}
    setting = MaskSetting(None, True, "otsu")
    assert setting.changes(recipe) == {
        "predict": {"refine": False, "crf": True, "background_rule": "otsu"}
    }
    assert str(setting) == "background per image (otsu), no refiner, final CRF"


def test_maps_with_a_background_of_their_own_need_no_threshold(source):
    recipe = parse_recipe(load_recipe("afa/synthetic_tiny").plain(), "test")
    recipe = recipe.with_classes(source.class_names)
    segmenter = Segmenter(build_method(recipe), recipe, "cpu")
    settings = mask_settings(segmenter, slow=False)
    assert {one.rule for one in settings} == {None}
    sample = source[0]
    output = segmenter.run_network(sample.image, sample.tags)
    made = dict(MaskMaker(segmenter, settings).masks(sample, output, (0,)))
    expected = segmenter.label(sample.image, ["cat"]).mask
    assert (made[0].numpy() != expected).mean() < 0.02
    assert len(made) == len(settings) > 2


def test_without_background_only_refiners_are_compared(segmenter, source):
    predict = segmenter.recipe.predict.model_copy(update={"has_background": False})
    recipe = segmenter.recipe.model_copy(update={"predict": predict})
    tissue = Segmenter(segmenter.method, recipe)
    settings = mask_settings(tissue, slow=False)
    assert {one.rule for one in settings} == {None}
    sample = source[1]
    output = tissue.run_network(sample.image, sample.tags)
    for _, mask in MaskMaker(tissue, settings).masks(sample, output, (0, 1)):
        assert set(mask.unique().tolist()) <= {1, 2}
