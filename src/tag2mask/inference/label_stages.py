"""The stages of one pseudo-label: refined CAM, propagated CAM, mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from tag2mask.inference.inspection import AffinityMaps, ImageMaps
from tag2mask.inference.postprocessing import (
    MaskOutput,
    PostProcessor,
    SelectedMaps,
    image_background,
    propagate_cam,
)
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.methods.build import build_refiner
from tag2mask.types import Image

LabelSource = Literal["settings", "refined", "propagated"]
"""Where a pseudo-label comes from: the test-time settings, or the refined or propagated CAM."""


class LabelStages(NamedTuple):
    """The CAM of an image's tags on its way to a pseudo-label."""

    refined: Tensor
    """(1, 1 + K, H, W) probabilities, background first; unrefined without a refiner."""
    propagated: Tensor | None
    """(1, 1 + K, h, w) probabilities at the affinity's grid; None without tags or affinity."""
    label: MaskOutput
    label_source: LabelSource


def compute_label_stages(
    segmenter: Segmenter, image: Image, image_maps: ImageMaps, class_indices: Sequence[int]
) -> LabelStages:
    """Refine and propagate the CAM of chosen classes, and compute the pseudo-label.

    Methods without a decoder give the label that the test-time settings ask for. Methods with a
    decoder train it on pseudo-labels: the label then comes from the propagated CAM, or from the
    refined CAM where there is no affinity.

    Args:
        segmenter: Refines with the recipe's refiner, even if its test-time settings do not.
        image: (H, W, 3) uint8 RGB.
        image_maps: What `inspect_image` computed for the image.
        class_indices: K indices of foreground classes, rising.
    """
    output = image_maps.output
    refiner = segmenter.postprocessor.refiner or build_refiner(segmenter.recipe)
    refiner = refiner.to(segmenter.device) if refiner else None
    rgb, selected_cam = image_tensor(image).to(segmenter.device), output.cam[:, list(class_indices)]
    postprocessor = PostProcessor(segmenter.config, refiner, None)
    indices, size = tuple(class_indices), (selected_cam.shape[-2], selected_cam.shape[-1])
    background = image_background(selected_cam, segmenter.config)
    refined = postprocessor(rgb, SelectedMaps(indices, selected_cam, "cam", size, background))
    propagating = segmenter.config.model_copy(update={"propagate": True})
    background = image_background(selected_cam, propagating)
    propagated = _propagate(image_maps.affinity_maps, selected_cam, background) if indices else None
    if output.logits is None:
        label = segmenter.compute_mask(image, output, class_indices)
        return LabelStages(refined.probs, propagated, label, "settings")
    if propagated is None:
        return LabelStages(refined.probs, None, refined, "refined")
    label = postprocessor(rgb, SelectedMaps(indices, propagated, "probs", size, background))
    return LabelStages(refined.probs, propagated, label, "propagated")


def _propagate(
    affinity_maps: AffinityMaps | None, selected_cam: Tensor, background: float
) -> Tensor | None:
    if affinity_maps is None or affinity_maps.affinity is None:
        return None
    return propagate_cam(
        selected_cam,
        affinity_maps.affinity[None],
        affinity_maps.grid,
        background,
        affinity_maps.radius,
    )
