"""The complete way from an image to its mask as one network, for ONNX and `torch.export`."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tag2mask.config.schema import NO_BACKGROUND
from tag2mask.errors import RunError
from tag2mask.functional.otsu import BINS, otsu_threshold
from tag2mask.inference.postprocessing import SelectedMaps
from tag2mask.inference.segmenter import Segmenter

EXCLUDED = -1e4
"""Score of a class that is not selected; its probability is then exactly 0."""
MAX_REASON = 160
"""Characters of an error of torch that a message repeats."""
EXAMPLE_SIZE = (150, 210)
"""(H, W) of the image that `torch.export` records; other sizes work as well."""


class ExportableNetwork(nn.Module):
    """Normalize, resize, run the network at all scales, select classes, refine, and make the mask.

    It has a copy of the network, on the CPU. It computes what `Segmenter.segment` does, but keeps
    the maps of all classes: where a class is not selected, its score is so low that it never wins
    and its probability is 0. The background score is subtracted from the CAM and becomes 0, which
    changes neither the largest score nor the softmax.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        """Wrap the network of a segmenter.

        Raises:
            RunError: If it does something that cannot be recorded; the message says how to mend it.
        """
        super().__init__()
        reject_unexportable(segmenter)
        self.method = copy.deepcopy(segmenter.method).cpu().requires_grad_(False)
        self.config = segmenter.config
        self.protocol = segmenter.protocol
        self.postprocessor = segmenter.postprocessor

    def forward(self, image: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
        """Segment one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            tags: (F,), above 0 for each class that the image shows; all 0 to let the classifier
                select the classes.

        Returns:
            Mask (H, W) uint8, 0 is background; class probabilities (F,).
        """
        planes = image.permute(2, 0, 1).unsqueeze(0)
        normalized = self.protocol.normalized_image(self.method, planes, self.config)
        output = self.protocol.predict(self.method, normalized, self.config, None, "")
        probs = output.probs[0]
        selected = self._selected(probs, tags)[None, :, None, None]
        classes = tuple(range(len(probs)))
        size = (output.cam.shape[-2], output.cam.shape[-1])
        if output.logits is None:
            relative = output.cam - self._background(output.cam, selected)
            maps = torch.where(selected, relative, EXCLUDED)
            kept = SelectedMaps(classes, maps, "cam", size, background=0.0)
        else:
            background, foreground = output.logits[:, :1], output.logits[:, 1:]
            if not self.config.has_background:
                background = foreground.amin(dim=1, keepdim=True) + NO_BACKGROUND
            maps = torch.cat([background, torch.where(selected, foreground, EXCLUDED)], dim=1)
            kept = SelectedMaps(classes, maps, "logits", size, background=0.0)
        return self.postprocessor(planes, kept).mask, probs

    def _background(self, cam: Tensor, selected: Tensor) -> Tensor | float:
        """Return the background score; see `postprocessing.image_background`."""
        if self.config.background_rule == "fixed" or not self.config.has_background:
            return self.config.background_score
        largest = torch.where(selected, cam, 0.0).amax(dim=1).flatten().float()
        steps = (largest * BINS).long().clamp_max(BINS - 1)
        counts = torch.zeros(BINS, device=cam.device).scatter_add(
            0, steps, torch.ones_like(largest)
        )
        return otsu_threshold(counts)

    def _selected(self, probs: Tensor, tags: Tensor) -> Tensor:
        """Return (F,) whether the mask may contain each class; see `multi_scale.select_classes`."""
        given = tags > 0
        chosen = torch.ones_like(given)
        if self.protocol.selects_by_classifier:
            chosen = probs > self.config.class_threshold
            if self.config.fallback or not self.config.has_background:
                most_probable = torch.arange(len(probs), device=probs.device) == probs.argmax()
                chosen = chosen | (most_probable & ~chosen.any())
        return given | (chosen & ~given.any())  # onnxruntime has no `where` of truth values


def reject_unexportable(segmenter: Segmenter) -> None:
    """Reject what cannot be recorded as a graph of operations.

    Raises:
        RunError: One line that names the setting to change.
    """
    config, recipe = segmenter.config, segmenter.recipe
    refiner = segmenter.postprocessor.refiner
    reasons = {
        "predict.propagate=false": config.propagate,
        "predict.crf=false": config.crf,
        "predict.confident=none": config.confident is not None,
        "predict.refine=false": refiner is not None and not refiner.exportable,
    }
    needed = [change for change, is_needed in reasons.items() if is_needed]
    if needed:
        raise RunError(f"a model file cannot contain all of this run; add {' '.join(needed)}")
    if segmenter.method.works_while_labeling:
        raise RunError(
            f"method '{recipe.method.name}' computes gradients for each image, which a model file "
            "cannot contain; export the network that it reads: add method.name=cam"
        )


def export_program(segmenter: Segmenter) -> torch.export.ExportedProgram:
    """Record the network of a segmenter for images of any size.

    Raises:
        RunError: If it cannot be recorded.
    """
    network = ExportableNetwork(segmenter).eval()
    image = torch.zeros(*EXAMPLE_SIZE, 3, dtype=torch.uint8)
    tags = torch.zeros(len(segmenter.class_names))
    side = torch.export.Dim.DYNAMIC
    shapes = {"image": {0: side, 1: side}, "tags": None}
    try:
        with torch.no_grad():
            return torch.export.export(network, (image, tags), dynamic_shapes=shapes, strict=False)
    except (RuntimeError, ValueError) as error:  # what torch raises where a size decides
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise RunError(
            f"method '{segmenter.recipe.method.name}' with backbone "
            f"'{segmenter.recipe.backbone.name}' cannot be recorded for images of any size "
            f"({reason})"
        ) from error
