"""Make the masks of one image in every way that a network allows, at many background thresholds.

The network runs once per image. Which threshold counts is chosen afterwards, on another list of
images (`evaluation.mask_scores`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.functional.precision import label_autocast
from tag2mask.functional.pseudo_label import with_constant_background
from tag2mask.inference.multi_scale import (
    predict_multi_scale,
    protocol_of,
    resolve_inference_config,
    select_classes,
)
from tag2mask.inference.postprocessing import PostProcessor, half_size, select_maps
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.methods.build import build_final_crf, build_refiner
from tag2mask.methods.protocol import MultiScaleCam, NetworkOutput
from tag2mask.refiners.base import Refiner
from tag2mask.types import BACKGROUND, ClassSource, Sample

Floats = npt.NDArray[np.float32]
Indices = tuple[int, ...]

CAM = "cam"
CRF_SUFFIX = " + crf"
KINDS: Mapping[str, str] = {
    CAM: "the CAM",
    "cam + refiner": "the CAM, refined",
    f"cam + refiner{CRF_SUFFIX}": "the CAM, refined, then a dense CRF at the image's size",
    "propagated": "the CAM, propagated along the affinity",
    "propagated + refiner": "the propagated CAM, refined",
    "decoder": "the method's own protocol: a decoder, or shares of each pixel",
    f"decoder{CRF_SUFFIX}": "the same, then a dense CRF at the image's size",
}
"""Kinds of masks, with their meaning."""
SLOW_KINDS = tuple(kind for kind in KINDS if kind.endswith(CRF_SUFFIX))
"""Kinds that take tenths of a second per threshold; made only where they are asked for."""
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, *np.arange(0.10, 0.81, 0.05).round(2).tolist())
"""Fine steps near 0: in a CAM with a narrow peak, all other values are small."""
COARSE_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""For refiners at the image's size, which take tenths of a second per threshold."""
NO_THRESHOLD = -1.0
"""Key of masks that need no threshold."""


class MaskPlan(NamedTuple):
    """How the masks of one kind are made from a CAM."""

    propagated: bool
    refiners: tuple[Refiner, ...]
    """Applied in order."""
    levels: tuple[float, ...] = ()
    """Background thresholds; empty: those that suit the refiners."""

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Background thresholds of the masks."""
        if self.levels:
            return self.levels
        slow = any(refiner.at_full_size for refiner in self.refiners)
        return COARSE_THRESHOLDS if slow else THRESHOLDS


class ThresholdMasks(NamedTuple):
    """The masks of one image and kind, one per background threshold."""

    thresholds: tuple[float, ...]
    """S thresholds; `NO_THRESHOLD` alone if the kind needs none."""
    masks: Tensor
    """(S, H, W) uint8, on the device of the network."""


class ImageCandidates(NamedTuple):
    """The candidate masks of one image for one class source."""

    cam: Floats
    """(F, H, W) CAM in [0, 1] at the image's size, 0 for classes that are not selected."""
    masks: dict[str, ThresholdMasks]
    """All kinds except the CAM itself, whose masks are thresholds of `cam`. Class sources that
    select the same classes share them."""


class CandidateMasks:
    """Makes the candidate masks of one image after another with one network."""

    def __init__(self, segmenter: Segmenter, slow_kinds: Collection[str] = ()) -> None:
        """Prepare a network.

        Args:
            segmenter: Its recipe names the refiner. Its own protocol makes the kind `decoder` if
                it does not work with the CAM.
            slow_kinds: Kinds of `SLOW_KINDS` to make as well.
        """
        self._segmenter = segmenter
        self._method = segmenter.method
        predict = segmenter.recipe.predict.model_copy(update={"protocol": "cam", "propagate": True})
        self._config = resolve_inference_config(predict, self._method)
        self._protocol = protocol_of(self._config, self._method)
        refiner = build_refiner(segmenter.recipe)
        self.refiner = refiner.to(segmenter.device) if refiner else None
        self._slow_kinds = frozenset(slow_kinds)

    @property
    def class_sources(self) -> tuple[ClassSource, ...]:
        """Both class sources; a method that works while labeling reads the tags, so only `tags`."""
        return ("tags",) if self._method.works_while_labeling else ("tags", "classifier")

    @property
    def settings(self) -> dict[str, object]:
        """Settings of the CAM masks, as plain values for JSON."""
        refiner = None if self.refiner is None else self.refiner.config.model_dump(mode="json")
        config = self._config
        return {"scales": list(config.scales or ()), "flip": config.flip, "refiner": refiner}

    @torch.no_grad()
    def make(self, sample: Sample) -> dict[ClassSource, ImageCandidates]:
        """Make the candidate masks of one image."""
        device = self._segmenter.device
        image = image_tensor(sample.image).to(device)
        tags = torch.from_numpy(sample.tags.astype(np.float32))[None].to(device)
        given = tags if self._method.works_while_labeling else None
        with label_autocast("auto", device.type):
            output = predict_multi_scale(self._method, image, self._config, given, sample.name)
        plans = self._plans(output)
        candidates: dict[ClassSource, ImageCandidates] = {}
        # Both class sources mostly select the same classes.
        by_classes: dict[Indices, dict[str, ThresholdMasks]] = {}
        for source in self.class_sources:
            indices = select_classes(output.probs, tags, self._config, self._protocol, source)
            if indices not in by_classes:
                by_classes[indices] = {
                    kind: make_masks(image, output, indices, plan) for kind, plan in plans.items()
                }
            cam = selected_cam(output.cam, indices, image.shape[-2:])
            candidates[source] = ImageCandidates(cam, dict(by_classes[indices]))
        if not isinstance(self._segmenter.protocol, MultiScaleCam):
            self._add_decoder_masks(candidates, image, tags, given, sample.name)
        return candidates

    def _plans(self, output: NetworkOutput) -> dict[str, MaskPlan]:
        """Plan every kind made from the CAM, except the CAM itself."""
        plans = {}
        refiners = () if self.refiner is None else (self.refiner,)
        if refiners:
            plans["cam + refiner"] = MaskPlan(propagated=False, refiners=refiners)
        if f"cam + refiner{CRF_SUFFIX}" in self._slow_kinds:
            crf = build_final_crf(self._protocol).to(self._segmenter.device)
            plan = MaskPlan(propagated=False, refiners=(*refiners, crf))
            plans[f"cam + refiner{CRF_SUFFIX}"] = plan
        if output.affinity is not None or output.propagation is not None:
            plans["propagated"] = MaskPlan(propagated=True, refiners=())
            if refiners:
                plans["propagated + refiner"] = MaskPlan(propagated=True, refiners=refiners)
        return plans

    def _add_decoder_masks(
        self,
        candidates: Mapping[ClassSource, ImageCandidates],
        image: Tensor,
        tags: Tensor,
        given: Tensor | None,
        name: str,
    ) -> None:
        """Add the masks of the method's own protocol, which need no threshold."""
        segmenter, config = self._segmenter, self._segmenter.config
        with label_autocast("auto", segmenter.device.type):
            output = predict_multi_scale(self._method, image, config, given, name)
        crfs: dict[str, Refiner | None] = {"decoder": None}
        if f"decoder{CRF_SUFFIX}" in self._slow_kinds:
            final_crf = build_final_crf(segmenter.protocol).to(segmenter.device)
            crfs[f"decoder{CRF_SUFFIX}"] = final_crf
        for source, found in candidates.items():
            indices = select_classes(output.probs, tags, config, segmenter.protocol, source)
            selected = select_maps(output, indices, config.background_score)
            for kind, crf in crfs.items():
                mask = PostProcessor(config, None, crf)(image, selected).mask
                found.masks[kind] = ThresholdMasks((NO_THRESHOLD,), mask[None])


def selected_cam(cam: Tensor, class_indices: Indices, size: Sequence[int]) -> Floats:
    """(F, H, W) CAM at the image's size, 0 for classes that are not selected."""
    selected = torch.zeros_like(cam)
    selected[:, list(class_indices)] = cam[:, list(class_indices)]
    resized: Floats = upsample(selected, tuple(size))[0].cpu().numpy()
    return resized


def make_masks(
    image: Tensor, output: NetworkOutput, class_indices: Indices, plan: MaskPlan
) -> ThresholdMasks:
    """Make the masks of one image for a kind, one per threshold; all thresholds in one pass.

    Args:
        image: (1, 3, H, W) uint8 RGB.
        output: What the network computed for it.
        class_indices: The classes that the masks may contain.
        plan: How the masks are made.
    """
    full = (image.shape[-2], image.shape[-1])
    if not class_indices:
        masks = image.new_full((len(plan.thresholds), *full), BACKGROUND)
        return ThresholdMasks(plan.thresholds, masks)
    sizes = [
        full if refiner.at_full_size else half_size((output.cam.shape[-2], output.cam.shape[-1]))
        for refiner in plan.refiners
    ]
    first = sizes[0] if sizes else full
    if plan.propagated:
        probs = _propagated_probs(output, class_indices, plan, first)
    else:
        cam = upsample(output.cam[:, list(class_indices)], first)
        probs = with_constant_background(cam, plan.thresholds)
    for refiner, size in zip(plan.refiners, sizes, strict=True):
        probs = refiner(upsample(image.float(), size), _resize_sets(probs, size))
    probs = _resize_sets(probs, full)
    values = torch.tensor([BACKGROUND, *(index + 1 for index in class_indices)], dtype=torch.uint8)
    return ThresholdMasks(plan.thresholds, values.to(probs.device)[probs.argmax(dim=2)[0]])


def _propagated_probs(
    output: NetworkOutput, class_indices: Indices, plan: MaskPlan, size: tuple[int, int]
) -> Tensor:
    """(1, S, 1 + K, *size) propagated probabilities, one set per threshold.

    IRN propagates a CAM, which meets the thresholds afterwards. PSA propagates a background of its
    own, so all sets are the same.
    """
    thresholds = plan.thresholds
    resize = _resize_aligned if plan.refiners else upsample
    backgrounds = thresholds[:1] if output.affinity is None else thresholds
    selected = [select_maps(output, class_indices, background) for background in backgrounds]
    maps = [resize(one.maps, size) for one in selected]
    if selected[0].kind == "cam":
        return with_constant_background(maps[0], thresholds)
    probs = torch.stack(maps, dim=1).expand(-1, len(thresholds), -1, -1, -1)
    return probs / probs.sum(dim=2, keepdim=True).clamp_min(1e-8)


def _resize_sets(probs: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (1, S, C, h, w) probabilities to (H, W) `size`."""
    if tuple(probs.shape[-2:]) == size:
        return probs
    return upsample(probs.flatten(1, 2), size).reshape(*probs.shape[:3], *size)


def _resize_aligned(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, K, h, w) propagated maps with aligned corners, as inference does for refiners."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
