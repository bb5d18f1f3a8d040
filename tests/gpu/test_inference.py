"""Masks, evaluation and labeling of every method are on a GPU what they are on the CPU."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conformance.stand_ins import METHODS, small_method, small_recipe
from tests.gpu.parity import exact_arithmetic

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.evaluation.sources import evaluate_source, tag_map
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.writer import MaskWriter, label_dataset
from tag2mask.io.masks import read_indices
from tag2mask.types import Sample

pytestmark = pytest.mark.gpu

CLASSES = ("blob", "ring", "stripe")
FEW_ITERATIONS: dict[str, dict[str, Any]] = {
    "advcam": {"iterations": 2, "half_iterations": 2, "label_precision": "fp32"},
    "rib": {"iterations": 2, "reference_px": 64, "num_reference_images": 2},
}
"""Settings of methods that work while labeling."""


class Blocks(Source):
    """Images of random color blocks; image k shows class k, with a mask of it."""

    Config = DataConfig

    def __init__(self) -> None:
        self.class_names = CLASSES
        self.names = ("a", "b", "c")
        self.tags = np.eye(3, dtype=np.uint8)
        self.has_masks = True

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng(index)
        image = random.integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
        mask = np.zeros(image.shape[:2], dtype=np.uint8)
        mask[9:40, 9:60] = index + 1
        return Sample(self.names[index], image, self.tags[index], mask)


def segmenters(name: str, *, crf: bool = False) -> tuple[Segmenter, Segmenter]:
    """Build the same trained network on both devices."""
    method = small_method(name, **FEW_ITERATIONS.get(name, {}))
    recipe = small_recipe(name)
    changes = {"crf": crf, "class_threshold": 0.3, "long_side_px": 0, "scales": (1.0, 0.5)}
    predict = recipe.predict.model_copy(update=changes)
    recipe = recipe.model_copy(update={"predict": predict})
    return Segmenter(copy.deepcopy(method), recipe, "cpu"), Segmenter(method, recipe, "cuda")


@pytest.mark.parametrize("name", METHODS)
def test_masks_and_maps_agree(name: str) -> None:
    cpu, gpu = segmenters(name)
    source = Blocks()
    for index in range(1 if name in FEW_ITERATIONS else 2):
        sample = source[index]
        with exact_arithmetic():
            first, second = (
                one.with_dataset(source).segment(
                    sample.image, sample.tags, keep_cam=True, name=sample.name
                )
                for one in (cpu, gpu)
            )
        assert first.cam is not None
        assert second.cam is not None
        assert np.abs(first.cam - second.cam).max() < 0.02
        assert (first.mask == second.mask).mean() > 0.99
        for key, value in first.scores.items():
            assert second.scores[key] == pytest.approx(value, abs=5e-3)


@pytest.mark.parametrize("source_of_classes", ["tags", "classifier"])
def test_evaluation_agrees(source_of_classes: str) -> None:
    cpu, gpu = segmenters("rml", crf=True)
    with exact_arithmetic():
        reports = [evaluate_source(one, Blocks(), source_of_classes) for one in (cpu, gpu)]
        precisions = [tag_map(one, Blocks(), 3) for one in (cpu, gpu)]
    assert reports[1].miou == pytest.approx(reports[0].miou, abs=0.01)
    np.testing.assert_allclose(reports[1].iou, reports[0].iou, atol=0.02)
    assert precisions[1] == pytest.approx(precisions[0], abs=1e-3)


def test_processes_on_the_cpu_refine_what_the_gpu_computed(tmp_path: Path) -> None:
    _, gpu = segmenters("rml", crf=True)
    source = Blocks()
    for workers in (1, 2):
        writer = MaskWriter(tmp_path / str(workers), CLASSES, "tags", gpu.settings("tags"))
        assert label_dataset(gpu, source, writer, workers=workers).written == 3
    for name in source.names:
        alone, shared = (read_indices(tmp_path / folder / f"{name}.png") for folder in "12")
        assert (alone == shared).mean() > 0.99


def test_batches_of_8_give_the_masks_of_single_images(tmp_path: Path) -> None:
    _, gpu = segmenters("rml", crf=True)
    source = Blocks()
    for size in (1, 8):
        batched = with_predict(gpu, batch_size=size, precision="fp32")
        assert batched.batch_size == size
        writer = MaskWriter(tmp_path / str(size), CLASSES, "tags", batched.settings("tags"))
        with exact_arithmetic():
            assert label_dataset(batched, source, writer).written == 3
    for name in source.names:
        alone, shared = (read_indices(tmp_path / folder / f"{name}.png") for folder in "18")
        assert (alone == shared).mean() > 0.999
    assert Segmenter(gpu.method, gpu.recipe, "cuda").batch_size == 8  # unless the recipe says else


def with_predict(segmenter: Segmenter, **changes: Any) -> Segmenter:
    """Return a segmenter of the same network on the GPU with other test-time settings."""
    predict = segmenter.recipe.predict.model_copy(update=changes)
    recipe = segmenter.recipe.model_copy(update={"predict": predict})
    return Segmenter(segmenter.method, recipe, "cuda")


def test_bf16_masks_agree_with_float32() -> None:
    _, gpu = segmenters("rml")
    full, half = (with_predict(gpu, precision=name) for name in ("fp32", "bf16"))
    sample = Blocks()[0]
    first, second = (one.segment(sample.image, sample.tags) for one in (full, half))
    assert (first.mask == second.mask).mean() > 0.9
