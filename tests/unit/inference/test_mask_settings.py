from tag2mask.config.recipe import Recipe
from tag2mask.config.schema import ConfidentConfig
from tag2mask.inference.segmenter import Segmenter


def test_settings_include_the_thresholds_of_confident_labels(
    recipe: Recipe, segmenter: Segmenter
) -> None:
    assert "confident" not in segmenter.settings("tags")
    predict = recipe.predict.model_copy(update={"confident": ConfidentConfig(name="psa")})
    confident = Segmenter(segmenter.method, recipe.model_copy(update={"predict": predict}))
    settings = confident.settings("tags")
    assert settings["confident"] == "psa"
    assert (settings["foreground_threshold"], settings["background_threshold"]) == (4.0, 32.0)


def test_how_fast_masks_are_made_is_no_setting_of_them(
    recipe: Recipe, segmenter: Segmenter
) -> None:
    predict = recipe.predict.model_copy(update={"batch_size": 4})
    fast = Segmenter(segmenter.method, recipe.model_copy(update={"predict": predict}))
    assert fast.batch_size == 4
    assert fast.settings("tags") == segmenter.settings("tags")


def test_class_threshold_is_a_setting_of_the_classifier_only(segmenter: Segmenter) -> None:
    assert segmenter.settings("classifier")["class_threshold"] == 0.5
    assert segmenter.settings("tags")["class_threshold"] is None


def test_without_background_its_score_and_rule_are_no_settings(
    recipe: Recipe, segmenter: Segmenter
) -> None:
    assert segmenter.settings("tags")["background"] == 0.45
    predict = recipe.predict.model_copy(update={"has_background": False})
    tissue = Segmenter(segmenter.method, recipe.model_copy(update={"predict": predict}))
    settings = tissue.settings("classifier")
    assert settings["has_background"] is False
    assert (settings["background"], settings["background_rule"]) == (None, None)
    assert settings["fallback"] is True
