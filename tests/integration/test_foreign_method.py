"""A method with a decoder and an unusual protocol is one file, used with no other edit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask import plugins
from tag2mask.config.recipe import parse_recipe
from tag2mask.config.schema import MethodConfig, PredictConfig
from tag2mask.evaluation.sources import evaluate_source
from tag2mask.functional.cam import upsample
from tag2mask.functional.pseudo_label import probs_with_background
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.writer import MaskWriter, label_dataset
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.protocol import InferenceProtocol, NetworkOutput
from tag2mask.pipeline import train

TURNS = (0, 1, 2, 3)
"""Quarter turns under which the unusual protocol runs the decoder."""


@dataclass(frozen=True, slots=True)
class QuarterTurns(InferenceProtocol):
    """Average the decoder's probabilities over four rotations; there is no flip and no scale."""

    name: ClassVar[str] = "quarter_turns"
    selects_by_classifier: ClassVar[bool] = False

    long_side_px: int = 64
    refine: bool = False

    def predict(
        self, method: Method, image: Tensor, config: PredictConfig, tags: Tensor | None, name: str
    ) -> NetworkOutput:
        output = method.compute_cam(image)
        probs = [
            method.segmentation(image.rot90(turn, (2, 3))).softmax(1).rot90(-turn, (2, 3))
            for turn in TURNS
        ]
        cam = upsample(output.cam.sigmoid(), image.shape[-2:])
        return NetworkOutput(cam, output.logits.sigmoid(), logits=torch.stack(probs).mean(0).log())


class ForeignConfig(MethodConfig):
    name: str = "foreign"
    decoder_weight: float = 0.5
    """Weight of the decoder's loss."""


class Foreign(Method):
    """A classifier, and a decoder that learns the classifier's own thresholded maps."""

    Config: ClassVar[type[MethodConfig]] = ForeignConfig
    config: ForeignConfig
    protocol: ClassVar[InferenceProtocol] = QuarterTurns()

    def __init__(self, config, backbone, num_foreground, refiner, steps) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self.classifier = nn.Conv2d(backbone.channels[-1], num_foreground, 1, bias=False)
        self.decoder = nn.Conv2d(backbone.channels[-1], num_foreground + 1, 1)

    def losses(self, batch, step: int) -> Mapping[str, Tensor]:
        features = self.backbone(self.backbone.normalize(batch.image)).maps[-1]
        cam = self.classifier(features)
        tagged = cam.detach().sigmoid() * batch.tags[:, :, None, None]
        label = probs_with_background(tagged, 0.4).argmax(dim=1)
        loss = F.cross_entropy(self.decoder(features), label)
        return {
            "classification": F.multilabel_soft_margin_loss(cam.mean((2, 3)), batch.tags),
            "decoder": self.config.decoder_weight * loss,
        }

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        cam = self.classifier(self.backbone(image).maps[-1])
        return CamOutput(cam.mean((2, 3)), cam)

    def segmentation(self, image: Tensor) -> Tensor:
        return self.decoder(self.backbone(image).maps[-1])


RECIPE = {
    "data": {"name": "synthetic", "size_px": 64, "crop_px": 64, "count": 12, "val_count": 4},
    "backbone": {"name": "tiny", "width": 8},
    "method": {"name": "foreign", "decoder_weight": 0.25},
    "optim": {"steps": 4, "batch_size": 2},
    "run": {"workers": 0, "samples": 1, "evaluate_images": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    point = SimpleNamespace(name="foreign", load=lambda: Foreign, value="tests:Foreign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            plugins, "entry_points", lambda group: [point] if group.endswith("methods") else []
        )
        yield train(parse_recipe(RECIPE, "foreign"), tmp_path_factory.mktemp("foreign") / "run")


def test_it_trains_with_its_own_key_and_losses(run):
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [record for record in map(json.loads, lines) if "losses" in record]
    assert set(steps[-1]["losses"]) == {"classification", "decoder"}
    assert "decoder_weight: 0.25" in (run / "recipe.yaml").read_text(encoding="utf-8")


def test_its_protocol_decides_what_inference_does(run):
    segmenter = Segmenter.load(run)
    settings = segmenter.settings("classifier")
    assert settings["protocol"] == "quarter_turns"
    assert (settings["long_side_px"], settings["class_threshold"]) == (64, None)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    turned = segmenter.run_network(np.ascontiguousarray(np.rot90(image))).logits
    upright = segmenter.run_network(image).logits
    # The mean over all four turns turns with the image.
    torch.testing.assert_close(turned, upright.rot90(1, (2, 3)), atol=1e-4, rtol=1e-4)


def test_another_method_can_borrow_its_protocol(run):
    borrowed = Segmenter.load(
        run,
        configure=lambda recipe: recipe.model_copy(
            update={"predict": recipe.predict.model_copy(update={"protocol": "cam"})}
        ),
    )
    assert borrowed.settings("tags")["protocol"] == "cam"


def test_it_labels_predicts_and_is_scored(run, tmp_path):
    segmenter = Segmenter.load(run)
    source = plugins.load("data", "synthetic")(segmenter.recipe.data, "val")
    writer = MaskWriter(tmp_path, segmenter.class_names, "tags", segmenter.settings("tags"))
    assert label_dataset(segmenter, source, writer).written == 4
    sample = source[0]
    tags = [name for name, shown in zip(source.class_names, sample.tags, strict=True) if shown]
    with Image.open(tmp_path / f"{sample.name}.png") as picture:
        assert np.array_equal(np.asarray(picture), segmenter.label(sample.image, tags).mask)
    assert segmenter.predict(sample.image).mask.shape == sample.image.shape[:2]
    assert evaluate_source(segmenter, source, "classifier").images == 4
