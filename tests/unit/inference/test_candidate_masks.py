"""The masks that are scored are the masks that a user gets."""

import numpy as np
import pytest
import torch
import yaml

from tag2mask import plugins
from tag2mask.config.recipe import load_recipe, parse_recipe
from tag2mask.inference import candidate_masks
from tag2mask.inference.candidate_masks import CandidateMasks, MaskPlan, make_masks
from tag2mask.inference.postprocessing import PostProcessor, select_maps
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_final_crf, build_method
from tag2mask.methods.protocol import MultiScaleCam, NetworkOutput

REFINERS = [None, "par", "{name: dense_crf, unary: label, iterations: 2}"]


def build(spec):
    settings = {"name": spec} if "{" not in spec else yaml.safe_load(spec)
    kind = plugins.load("refiners", settings["name"])
    return kind(kind.Config(**settings))


def network_output(propagated):
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (1, 3, 64, 96), generator=generator, dtype=torch.uint8)
    cam = torch.rand(1, 3, 64, 96, generator=generator)
    affinity = torch.rand(1, 24, 24, generator=generator) if propagated else None
    return image, NetworkOutput(cam, torch.zeros(1, 3), affinity, 8)


@pytest.fixture
def two_thresholds(monkeypatch):
    monkeypatch.setattr(candidate_masks, "THRESHOLDS", (0.2, 0.5))
    monkeypatch.setattr(candidate_masks, "COARSE_THRESHOLDS", (0.2, 0.5))


def check_against_postprocessor(plan, image, output, refiner, crf):
    thresholds, masks = make_masks(image, output, (0, 2), plan)
    predict = load_recipe("rml/synthetic_tiny").predict
    assert thresholds == (0.2, 0.5)
    for threshold, mask in zip(thresholds, masks.numpy(), strict=True):
        config = predict.model_copy(update={"background": threshold})
        selected = select_maps(output, (0, 2), threshold)
        expected = PostProcessor(config, refiner, crf)(image, selected).mask.numpy()
        assert (mask != expected).mean() < 2e-3, threshold  # ties of resized maps
        assert set(np.unique(mask)) <= {0, 1, 3}
    assert (masks[0] != masks[1]).any()


@pytest.mark.parametrize("propagated", [False, True])
@pytest.mark.parametrize("spec", REFINERS)
def test_masks_of_a_kind_equal_the_masks_a_user_gets(two_thresholds, spec, propagated):
    if spec is None and not propagated:
        pytest.skip("the CAM itself is scored by a threshold sweep")
    image, output = network_output(propagated)
    refiner = None if spec is None else build(spec)
    plan = MaskPlan(propagated, () if refiner is None else (refiner,))
    check_against_postprocessor(plan, image, output, refiner, None)
    assert not make_masks(image, output, (), plan).masks.any()


def test_a_final_crf_follows_the_refiner_at_full_size(two_thresholds):
    image, output = network_output(propagated=False)
    par, crf = build("par"), build_final_crf(MultiScaleCam())
    settings = crf.config.model_dump()
    afa = {"bilateral_sxy": 64, "bilateral_srgb": 5, "bilateral_weight": 4}
    assert {key: settings[key] for key in afa} == afa  # the CRF that RML and AFA end with
    check_against_postprocessor(MaskPlan(False, (par, crf)), image, output, par, crf)


def network(**changes):
    raw = load_recipe("afa/synthetic_tiny").plain() | changes
    recipe = parse_recipe(raw, "test").with_classes(["a", "b", "c"])
    return Segmenter(build_method(recipe), recipe, "cpu")


def test_every_kind_that_the_network_allows_is_made(source):
    masks = CandidateMasks(network()).make(source[0])
    kinds = {"cam + refiner", "propagated", "propagated + refiner", "decoder"}
    assert set(masks) == {"tags", "classifier"}
    assert set(masks["tags"].masks) == kinds
    slow = CandidateMasks(network(), candidate_masks.SLOW_KINDS).make(source[0])
    assert set(slow["tags"].masks) == kinds | set(candidate_masks.SLOW_KINDS)


def test_cam_of_classes_that_are_not_selected_is_zero(segmenter, source):
    sample = source[1]
    cam = CandidateMasks(segmenter).make(sample)["tags"].cam
    assert cam.shape == (3, *sample.image.shape[:2])
    assert cam[sample.tags == 0].max() == 0
    assert cam[sample.tags == 1].max() > 0


def test_decoder_masks_are_those_of_label_and_predict(source):
    segmenter, sample = network(), source[0]
    masks = CandidateMasks(segmenter).make(sample)
    for class_source, tags in (("tags", sample.tags), ("classifier", None)):
        thresholds, (mask,) = masks[class_source].masks["decoder"]
        assert thresholds == (candidate_masks.NO_THRESHOLD,)
        assert (mask.numpy() == segmenter.segment(sample.image, tags).mask).mean() > 0.98  # bf16


def test_a_method_that_reads_tags_while_labeling_has_no_masks_from_the_classifier(recipe, source):
    advcam = parse_recipe({**recipe.plain(), "method": {"name": "advcam", "iterations": 1}}, "test")
    candidates = CandidateMasks(Segmenter(build_method(advcam), advcam, "cpu"))
    assert candidates.class_sources == ("tags",)
    assert set(candidates.make(source[0])) == {"tags"}


def test_1stage_has_the_masks_of_its_own_protocol(source):
    raw = {
        "data": {"name": "synthetic"},
        "backbone": {"name": "tiny", "width": 8},
        "method": {"name": "onestage", "width": 8},
        "refiner": {"name": "pamr"},
        "predict": {"protocol": "onestage", "class_threshold": 0.1},
    }
    recipe = parse_recipe(raw, "onestage").with_classes(source.class_names)
    segmenter = Segmenter(build_method(recipe), recipe, "cpu")
    torch.nn.init.normal_(segmenter.method.decoder.classifier.weight, std=5.0)
    candidates = CandidateMasks(segmenter)
    values = set()
    for index in range(len(source)):
        sample = source[index]
        masks = candidates.make(sample)
        for class_source, tags in (("tags", sample.tags), ("classifier", None)):
            _, (mask,) = masks[class_source].masks["decoder"]
            assert (mask.numpy() == segmenter.segment(sample.image, tags).mask).mean() > 0.98
            values |= set(mask.unique().tolist())
    assert len(values) > 1
