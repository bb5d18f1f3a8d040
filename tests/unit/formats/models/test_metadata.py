import json

from tests.conformance.stand_ins import CLASSES, small_method, small_recipe

from tag2mask.formats.models.metadata import model_metadata
from tag2mask.inference.segmenter import Segmenter
from tag2mask.version import __version__


def test_a_model_file_names_classes_thresholds_license_and_version():
    method = small_method("cam")
    method.backbone.weights_license = "Apache-2.0"
    origin = {"run": "/home/me/runs/cows", "weights": "best", "sha256": "abc"}
    metadata = model_metadata(Segmenter(method, small_recipe("cam"), "cpu", origin=origin))
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert (metadata["class_threshold"], metadata["background"]) == ("0.5", "0.45")
    assert metadata["weights_license"] == "Apache-2.0"
    assert metadata["tag2mask_version"] == __version__
    assert metadata["run"] == "cows"
    assert "/home/me" not in json.dumps(metadata)
    assert all(isinstance(value, str) for value in metadata.values())
