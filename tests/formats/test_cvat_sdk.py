"""CVAT's command line loads the function, and its SDK decodes the masks exactly."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage
from tests.formats.conftest import scene_masks
from tests.unit.formats.conftest import CLASSES

from tag2mask.formats import cvat_function
from tag2mask.formats.contours import draw_ring
from tag2mask.types import Prediction

sdk = pytest.importorskip("cvat_sdk.masks")
command_line = pytest.importorskip("cvat_cli._internal.common")
pytestmark = pytest.mark.formats
SCORES = {"cat": 0.9, "two words": 0.4}


class Scenes:
    """Stands in for a trained run: the red value of an image says which mask it gets."""

    class_names = CLASSES

    def predict(self, image):
        mask = list(scene_masks().values())[image.getpixel((0, 0))[0]]
        return Prediction(mask, CLASSES, SCORES, "classifier", np.asarray(image))


@pytest.fixture
def function(monkeypatch):
    """What `cvat-cli task auto-annotate` builds from --function-module and -p."""
    monkeypatch.setattr(cvat_function, "load", {"RUN": Scenes()}.get)
    parameters = {"run": command_line.parse_function_parameter("run=str:RUN")[1]}
    return command_line.FunctionLoader("tag2mask.formats.cvat_function", None, parameters).load()


def detect(function, index, *, polygons=False, threshold=None):
    context = SimpleNamespace(conv_mask_to_poly=polygons, conf_threshold=threshold)
    return function.detect(context, PILImage.new("RGB", (8, 8), (index, 0, 0)))


def test_labels_are_the_classes(function):
    labels = [(label.id, label.name) for label in function.spec.labels]
    assert labels == [(0, "cat"), (1, "two words")]


@pytest.mark.parametrize("polygons", [False, True])
def test_masks_and_polygons_are_exact(function, polygons):
    for index, mask in enumerate(scene_masks().values()):
        height, width = mask.shape
        found = np.zeros_like(mask)
        for shape in detect(function, index, polygons=polygons):
            assert shape.type.value == ("polygon" if polygons else "mask")
            if polygons:
                inside = draw_ring(np.reshape(shape.points, (-1, 2)), mask.shape)
            else:
                inside = sdk.decode_mask(shape.points, image_width=width, image_height=height)
            assert not found[inside].any()
            found[inside] = shape.label_id + 1
        assert np.array_equal(found, mask)


def test_classes_below_the_threshold_are_left_out(function):
    blobs = list(scene_masks()).index("big/blobs")
    assert {shape.label_id for shape in detect(function, blobs)} == {0, 1}
    assert {shape.label_id for shape in detect(function, blobs, threshold=0.5)} == {0}
