"""PyTorch program (.pt2) for torch.export.load: runs with torch alone."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tag2mask.formats.base import ModelFormat
from tag2mask.formats.models.metadata import model_metadata
from tag2mask.inference.exportable import export_program
from tag2mask.inference.segmenter import Segmenter

METADATA_FILE = "tag2mask.json"


class TorchExport(ModelFormat):
    """The same network as in ONNX, as a program of PyTorch; both inputs are needed."""

    suffix = ".pt2"

    def write(self, segmenter: Segmenter, out: Path) -> None:
        """Write the program; classes, thresholds and license are the extra file METADATA_FILE."""
        program = export_program(segmenter)
        text = json.dumps(model_metadata(segmenter), ensure_ascii=False)
        torch.export.save(program, out, extra_files={METADATA_FILE: text})
