"""Exported networks give the masks of their run, without torch and without tag2mask."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from tests.conformance.stand_ins import CLASSES, randomized_batchnorm, small_method, small_recipe

from tag2mask.checkpoint import save_weights
from tag2mask.cli.main import main
from tag2mask.inference.segmenter import Segmenter

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples" / "predict_with_onnx.py"
ONLY_THESE = """
import runpy, sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "tag2mask", "onnx", "scipy", "transformers"}:
            raise ImportError(f"{name} is not part of a bare environment")
sys.meta_path.insert(0, Bare())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SIZES = ((150, 210), (64, 97), (131, 40), (33, 20), (300, 1100))
TIE = 2e-4
"""Difference of two probabilities that are each exact within 1e-4."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a network of random weights, for which all classes are probable."""
    folder = tmp_path_factory.mktemp("run")
    recipe = small_recipe("cam")
    predict = recipe.predict.model_copy(update={"class_threshold": 0.45, "precision": "fp32"})
    recipe = recipe.model_copy(update={"predict": predict})
    method = small_method("cam")
    randomized_batchnorm(method)
    path = folder / "weights" / "best.safetensors"
    save_weights(path, method.state_dict(), recipe, "Apache-2.0")
    return folder


@pytest.fixture(scope="module")
def images():
    """Smooth random images of several sizes."""
    found = {}
    for height, width in SIZES:
        coarse = np.random.default_rng(height).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        small = PILImage.fromarray(coarse)
        found[f"{height}x{width}"] = np.array(small.resize((width, height)))
    return found


def assert_same_mask(found, expected, segmenter, image):
    """Masks agree but where two classes are equally probable."""
    differing = found != expected.mask
    if differing.any():
        output = segmenter.infer(image)
        planes = torch.from_numpy(image).permute(2, 0, 1)[None]
        probs = segmenter.postprocessor(planes, output.selected).probs[0]
        largest = probs.topk(2, dim=0).values
        assert (largest[0] - largest[1])[torch.from_numpy(differing)].max() < TIE


def test_onnx_has_parity_and_runs_without_torch(run, images, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    assert main(["export", str(run), "--format", "onnx", "--out", str(out)]) == 0
    session = onnxruntime.InferenceSession(str(out))
    assert session.get_modelmeta().custom_metadata_map["weights_license"] == "Apache-2.0"
    segmenter = Segmenter.load(run, device="cpu")
    for name, image in images.items():
        expected = segmenter.predict(image)
        mask, scores = session.run(None, {"image": image})
        np.testing.assert_allclose(scores, list(expected.scores.values()), atol=1e-4)
        assert_same_mask(mask, expected, segmenter, image)
        PILImage.fromarray(image).save(tmp_path / f"{name}.png")
    ring = np.array([one == "ring" for one in CLASSES], dtype=np.float32)
    labeled, _ = session.run(None, {"image": image, "tags": ring})
    assert (labeled != segmenter.label(image, ["ring"]).mask).mean() < 1e-3
    paths = sorted(str(path) for path in tmp_path.glob("*x*.png"))
    line = [sys.executable, "-c", ONLY_THESE, str(EXAMPLE), str(out), str(tmp_path / "masks")]
    finished = subprocess.run([*line, *paths], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert len(list((tmp_path / "masks").glob("*.png"))) == len(images)


def test_a_program_of_torch_has_parity(run, images, tmp_path):
    out = tmp_path / "model.pt2"
    assert main(["export", str(run), "--format", "torch_export", "--out", str(out)]) == 0
    extra = {"tag2mask.json": ""}
    network = torch.export.load(out, extra_files=extra).module()
    assert json.loads(json.loads(extra["tag2mask.json"])["classes"]) == list(CLASSES)
    segmenter = Segmenter.load(run, device="cpu")
    for image in images.values():
        expected = segmenter.predict(image)
        mask, scores = network(torch.from_numpy(image), torch.zeros(len(CLASSES)))
        np.testing.assert_allclose(scores, list(expected.scores.values()), atol=1e-4)
        assert_same_mask(mask.numpy(), expected, segmenter, image)
