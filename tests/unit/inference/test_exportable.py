import numpy as np
import pytest
import torch
from tests.conformance.stand_ins import (
    CLASSES,
    METHODS,
    randomized_batchnorm,
    small_method,
    small_recipe,
)

from tag2mask.errors import RunError
from tag2mask.inference.exportable import ExportableNetwork
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.cam import CAM

GRADIENTS = {"advcam", "rib"}
"""Methods that compute gradients for each image."""
NO_TAGS = torch.zeros(len(CLASSES))


def small_segmenter(name="cam", **predict):
    recipe = small_recipe(name)
    small = {"precision": "fp32", "long_side_px": 71}
    changed = recipe.predict.model_copy(update={**small, **predict})
    return Segmenter(small_method(name), recipe.model_copy(update={"predict": changed}), "cpu")


def with_objects(segmenter):
    """Let every layer contribute and every CAM be positive, so that masks are not empty."""
    randomized_batchnorm(segmenter.method)
    segmenter.method.head.classifier.weight.data.abs_()
    return segmenter


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", sorted(set(METHODS) - GRADIENTS))
def test_the_network_computes_what_a_segmenter_does(name, image):
    segmenter = small_segmenter(name, class_threshold=0.5, fallback=True)
    network = ExportableNetwork(segmenter).eval()
    with torch.no_grad():
        for tags in ((), ("blob", "stripe")):
            row = torch.tensor([float(one in tags) for one in CLASSES])
            mask, scores = network(torch.from_numpy(image), row)
            expected = segmenter.label(image, tags) if tags else segmenter.predict(image)
            assert np.array_equal(mask.numpy(), expected.mask)
            np.testing.assert_allclose(scores, list(expected.scores.values()), atol=1e-6)


@pytest.mark.parametrize(("threshold", "fallback"), [(0.0, False), (1.0, True), (1.0, False)])
def test_threshold_and_fallback_choose_the_classes(threshold, fallback, image):
    settings = {"class_threshold": threshold, "fallback": fallback, "refine": False}
    segmenter = with_objects(small_segmenter(**settings))
    with torch.no_grad():
        mask, _ = ExportableNetwork(segmenter).eval()(torch.from_numpy(image), NO_TAGS)
    assert np.array_equal(mask.numpy(), segmenter.predict(image).mask)
    assert bool(mask.any()) == (threshold == 0.0 or fallback)


@pytest.mark.parametrize("refine", [True, False])
def test_the_background_score_of_each_image_is_found(refine, image):
    settings = {"background_rule": "otsu", "refine": refine, "class_threshold": 0.0}
    segmenter = with_objects(small_segmenter(**settings))
    with torch.no_grad():
        mask, _ = ExportableNetwork(segmenter).eval()(torch.from_numpy(image), NO_TAGS)
    assert np.array_equal(mask.numpy(), segmenter.predict(image).mask)
    assert 0 < mask.bool().float().mean() < 1


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"propagate": True}, "predict.propagate=false"),
        ({"crf": True}, "predict.crf=false"),
    ],
)
def test_a_setting_that_cannot_be_exported_is_named(settings, change):
    name = "rml" if "propagate" in settings else "cam"
    with pytest.raises(RunError, match=change):
        ExportableNetwork(small_segmenter(name, **settings))


@pytest.mark.parametrize("name", sorted(GRADIENTS))
def test_a_method_with_gradients_is_named(name):
    assert issubclass(type(small_method(name)), CAM)
    with pytest.raises(RunError, match=rf"'{name}' computes gradients .* method.name=cam"):
        ExportableNetwork(small_segmenter(name))
