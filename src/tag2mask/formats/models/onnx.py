"""ONNX model for onnxruntime: an image of any size in, its mask and class scores out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tag2mask.errors import MissingExtraError
from tag2mask.formats.base import ModelFormat
from tag2mask.formats.models.metadata import INPUTS, OUTPUTS, model_metadata
from tag2mask.inference.exportable import export_program
from tag2mask.inference.segmenter import Segmenter


class ONNX(ModelFormat):
    """Normalization, network at all scales, class selection and refiner in one graph.

    The input `tags` is optional: without it, the classifier selects the classes.
    """

    suffix = ".onnx"

    def write(self, segmenter: Segmenter, out: Path) -> None:
        """Write the model with its classes, thresholds and license as metadata."""
        try:
            import onnx
            import onnxscript  # noqa: F401  # the exporter of torch imports it late
        except ImportError as error:
            raise MissingExtraError("onnx") from error
        program = export_program(segmenter)
        with _quiet():
            exported = torch.onnx.export(
                program, input_names=INPUTS, output_names=OUTPUTS, dynamo=True, verbose=False
            )
        assert exported is not None, "the exporter with dynamo returns a program"
        model: Any = exported.model_proto
        no_tags = onnx.numpy_helper.from_array(
            torch.zeros(len(segmenter.class_names)).numpy(), INPUTS[1]
        )
        model.graph.initializer.append(no_tags)  # an input with an initializer may be left out
        model.producer_name = "tag2mask"
        for key, value in model_metadata(segmenter).items():
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model)
        onnx.save(model, out)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings of the exporter, which concern its own code."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
