from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from tests.conformance.stand_ins import small_method, small_recipe

from tag2mask.checkpoint import save_weights
from tag2mask.config.recipe import Recipe
from tag2mask.config.schema import PredictConfig
from tag2mask.data.base import Source
from tag2mask.errors import DataError, RecipeError
from tag2mask.functional import precision
from tag2mask.inference.segmenter import Segmenter, load
from tag2mask.methods.base import evaluating
from tag2mask.methods.build import build_method


def write_run(segmenter: Segmenter, folder: Path, which: str = "best") -> Path:
    state = segmenter.method.state_dict()
    save_weights(folder / "weights" / f"{which}.safetensors", state, segmenter.recipe)
    return folder


def test_predict_takes_paths_pictures_and_arrays_alike(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    image = source[0].image
    path = tmp_path / "image.png"
    PILImage.fromarray(image).save(path)
    masks = [
        segmenter.predict(given).mask for given in (image, PILImage.open(path), path, str(path))
    ]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    assert masks[0].shape == image.shape[:2]
    assert masks[0].dtype == np.uint8


def test_image_taken_sideways_gets_an_upright_mask(segmenter: Segmenter, tmp_path: Path) -> None:
    picture = PILImage.new("RGB", (60, 40))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(tmp_path / "turned.jpg", exif=exif)
    with PILImage.open(tmp_path / "turned.jpg") as opened:
        assert segmenter.predict(opened).mask.shape == (60, 40)


def test_label_holds_only_the_tags_and_predict_all_likely_classes(
    segmenter: Segmenter, source: Source
) -> None:
    image = source[0].image
    labeled = segmenter.label(image, ["cow"])
    assert labeled.class_source == "tags"
    assert set(np.unique(labeled.mask)) == {0, 2}
    assert labeled.classes == ("cow",)
    assert segmenter.label(image, []).mask.max() == 0
    predicted = segmenter.predict(image)
    assert predicted.class_source == "classifier"
    likely = {name for name, probs in predicted.scores.items() if probs > 0.5}
    assert set(predicted.classes) <= likely
    assert predicted.scores == labeled.scores


def test_unknown_tag_is_rejected_with_a_hint(segmenter: Segmenter, source: Source) -> None:
    with pytest.raises(DataError, match=r"unknown tag 'cwo'\. Did you mean 'cow'\?"):
        segmenter.label(source[0].image, ["cwo"])


def test_array_that_is_no_image_is_rejected(segmenter: Segmenter) -> None:
    with pytest.raises(DataError, match=r"shape \(3, 8, 8\) has its channels first"):
        segmenter.predict(np.zeros((3, 8, 8), dtype=np.uint8))


def test_other_settings_share_the_network_and_leave_the_segmenter_alone(
    segmenter: Segmenter, source: Source
) -> None:
    image = source[0].image
    before = segmenter.label(image, "cow").mask
    strict = segmenter.with_settings(
        background=0.9, refiner="none", scales=[1.0], flip=False, crf=True, class_threshold=0.2
    )
    assert strict.method is segmenter.method
    settings = strict.settings("classifier")
    assert (settings["background"], settings["refiner"], settings["flip"]) == (0.9, None, False)
    assert (settings["scales"], settings["class_threshold"]) == ([1.0], 0.2)
    assert settings["crf"]["name"] == "dense_crf"
    assert np.array_equal(segmenter.label(image, "cow").mask, before)


def test_a_refiner_named_later_is_applied_even_if_the_run_applies_none(
    recipe: Recipe, segmenter: Segmenter
) -> None:
    predict = recipe.predict.model_copy(update={"refine": False, "background_rule": "otsu"})
    bare = Segmenter(segmenter.method, recipe.model_copy(update={"predict": predict}))
    assert bare.postprocessor.refiner is None
    changed = bare.with_settings(refiner="dense_crf", background=0.3).settings("tags")
    assert changed["refiner"]["name"] == "dense_crf"
    assert (changed["background_rule"], changed["background"]) == ("fixed", 0.3)


def test_a_setting_out_of_range_is_one_line(segmenter: Segmenter) -> None:
    with pytest.raises(RecipeError, match=r"^predict\.background: [^\n]*1\.5[^\n]*$"):
        segmenter.with_settings(background=1.5)
    with pytest.raises(RecipeError, match=r"unknown refiner 'crf'\."):
        segmenter.with_settings(refiner="crf")


def test_cam_is_kept_when_asked_and_zero_for_classes_that_are_not_selected(
    segmenter: Segmenter, source: Source
) -> None:
    image = source[0].image
    assert segmenter.label(image, ["cow"]).cam is None
    cam = segmenter.label(image, ["cow"], keep_cam=True).cam
    assert cam is not None
    assert cam.shape == (3, *image.shape[:2])
    assert cam[[0, 2]].max() == 0
    assert 0.9 < cam[1].max() < 1


def test_the_network_is_put_into_evaluation_mode_once_and_for_all(
    segmenter: Segmenter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter.method.train()
    again = Segmenter(segmenter.method, segmenter.recipe)
    assert not any(part.training for part in again.method.modules())
    first = again.predict(source[0].image).scores
    network = type(again.method)
    monkeypatch.setattr(network, "train", lambda *_: pytest.fail("a call changes the mode"))
    monkeypatch.setattr(network, "_apply", lambda *_: pytest.fail("a call moves tensors"))
    assert again.predict(source[0].image, background=0.3).scores == first
    assert again.class_scores(source[0].image) == first


def test_mode_is_put_back_after_a_problem() -> None:
    network = torch.nn.Sequential(torch.nn.Dropout()).train()
    with pytest.raises(ZeroDivisionError), evaluating(network):
        _ = 1 / network[0].training  # False in evaluation mode
    assert network[0].training


def test_class_scores_equal_those_of_a_prediction(segmenter: Segmenter, source: Source) -> None:
    image = source[1].image
    scores = segmenter.class_scores(image)
    assert list(scores) == ["cat", "cow", "dog"]
    expected = segmenter.predict(image).scores
    assert scores == pytest.approx(expected, abs=1e-5)


def test_loaded_run_predicts_the_same(segmenter: Segmenter, source: Source, tmp_path: Path) -> None:
    loaded = load(write_run(segmenter, tmp_path))
    assert loaded.class_names == ("cat", "cow", "dog")
    expected = segmenter.label(source[0].image, ["dog"])
    found = loaded.label(source[0].image, ["dog"])
    assert np.array_equal(found.mask, expected.mask)
    assert found.scores == expected.scores


@pytest.mark.parametrize("name", ["rib", "psa", "irn"])
def test_a_method_sees_the_other_images_of_a_labeling_run(name: str, source: Source) -> None:
    recipe = small_recipe("rib")
    method = small_method("rib", num_reference_images=1)
    if name != "rib":  # these hand the images on to their frozen classifier
        recipe, rib = small_recipe(name), method
        method = build_method(recipe, {"cam": rib})
    segmenter = Segmenter(method, recipe, "cpu")
    informed = segmenter.with_dataset(source)
    inner = [one.method if name == "rib" else one.method.classifier.method for one in
             (segmenter, informed)]  # fmt: skip
    assert inner[0]._dataset is None
    images = inner[1]._dataset
    assert images.names == source.names
    assert images.tags is source.tags
    assert np.array_equal(images.image(2).permute(1, 2, 0), source[2].image)
    pairs = zip(segmenter.method.parameters(), informed.method.parameters(), strict=True)
    assert all(first is second for first, second in pairs)


def test_test_time_settings_can_be_replaced(segmenter: Segmenter, tmp_path: Path) -> None:
    predict = PredictConfig(refine=False, scales=(1.0,), background=0.3)
    loaded = Segmenter.load(
        write_run(segmenter, tmp_path),
        configure=lambda recipe: recipe.model_copy(update={"predict": predict}),
    )
    assert loaded.postprocessor.refiner is None
    settings = loaded.settings("classifier")
    assert settings["refiner"] is None
    assert settings["scales"] == [1.0]
    assert settings["background"] == 0.3


def with_precision(segmenter: Segmenter, name: str) -> Segmenter:
    predict = segmenter.recipe.predict.model_copy(update={"precision": name})
    return Segmenter(segmenter.method, segmenter.recipe.model_copy(update={"predict": predict}))


def test_bf16_agrees_with_fp32(segmenter: Segmenter, source: Source) -> None:
    full, half = (with_precision(segmenter, name) for name in ("fp32", "bf16"))
    assert (full.settings("tags")["precision"], half.settings("tags")["precision"]) == (
        "fp32",
        "bf16",
    )
    image = source[0].image
    exact = full.label(image, ["cow"], keep_cam=True).cam
    rough = half.label(image, ["cow"], keep_cam=True).cam
    assert exact is not None
    assert rough is not None
    assert rough.dtype == np.float32
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, atol=0.1)


def test_network_runs_in_bf16_by_default_where_the_hardware_has_it(
    segmenter: Segmenter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast, name in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precision, "has_fast_bf16", lambda device, fast=fast: fast)
        assert segmenter.settings("classifier")["precision"] == name
        same = with_precision(segmenter, name).label(source[0].image, ["cow"], keep_cam=True)
        made = segmenter.label(source[0].image, ["cow"], keep_cam=True)
        np.testing.assert_array_equal(made.cam, same.cam)
