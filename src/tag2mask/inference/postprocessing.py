"""Steps 4 to 6 from image to mask: select the maps of its classes, refine them, threshold them.

None of these steps needs the network, so other processes can do the last two.

Source:
    Specification 2.3 and 2.5 (labels), 2.7 (propagation), 2.11 (decoder), R18 (order of steps),
    4.3 (confident pseudo-labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import NO_BACKGROUND, PredictConfig
from tag2mask.functional.affinity import propagate
from tag2mask.functional.bands import is_large
from tag2mask.functional.cam import upsample
from tag2mask.functional.otsu import BINS, otsu_threshold
from tag2mask.functional.pseudo_label import confident_label, probs_with_background
from tag2mask.functional.sizes import at_least, limited_size
from tag2mask.inference.multi_scale import confident_labels_of
from tag2mask.methods.confident import ConfidentLabels
from tag2mask.methods.protocol import MIN_SIDE_PX, NetworkOutput, nearest_pixels
from tag2mask.refiners.base import Refiner
from tag2mask.types import BACKGROUND, IGNORE

STRIDES = (16, 8, 32, 4)
"""Strides of last feature maps, the usual one first."""

MIN_SHARE = 1e-6
"""Keeps a class in every pixel of an image without background."""

MapKind = Literal["cam", "probs", "logits", "confident"]
"""What the numbers of a map are. `probs` need not sum to 1; `confident` are two sets of `probs`."""


class SelectedMaps(NamedTuple):
    """The maps of one image from which a mask of selected classes is made."""

    class_indices: tuple[int, ...]
    """Indices of the K foreground classes that the mask may contain."""
    maps: Tensor
    """(1, K, h, w) CAM in [0, 1]; or (1, 1 + K, h, w) with background first; or
    (1, 2, 1 + K, h, w) for the two sets of confident pseudo-labels."""
    kind: MapKind
    working_size: tuple[int, int]
    """(h, w) of the image that the network saw."""
    background: float
    """Background score beside a CAM."""


class MaskOutput(NamedTuple):
    """A mask and the probabilities it was made from."""

    mask: Tensor
    """(H, W) uint8 class values at the image's size."""
    probs: Tensor
    """(1, 1 + K, h, w) probabilities of background and the K selected classes, in that order; at
    the image's size, or at the decoder's grid if nothing refined them."""


class PostProcessor(NamedTuple):
    """Everything that turns selected maps into a mask; can be sent to another process."""

    config: PredictConfig
    refiner: Refiner | None
    crf: Refiner | None

    def __call__(self, image: Tensor, selected: SelectedMaps) -> MaskOutput:
        """Make the mask of a (1, 3, H, W) uint8 image: refine, then threshold."""
        return self.threshold(image, self.refine(image, selected))

    def refine(self, image: Tensor, selected: SelectedMaps) -> SelectedMaps:
        """Refine the maps of an image by all refiners; see `refine_maps`."""
        refiners = [one for one in (self.refiner, self.crf) if one is not None]
        return refine_maps(image, selected, self.config, refiners)

    def threshold(self, image: Tensor, refined: SelectedMaps) -> MaskOutput:
        """Turn the refined maps of an image into its mask."""
        return ignore_uncertain(maps_to_mask(refined, _size(image)), self.config.min_confidence)


def image_background(selected_cam: Tensor, config: PredictConfig) -> float:
    """Return the background score of one image, from the (1, K, h, w) CAM of its classes."""
    if not config.has_background:
        return NO_BACKGROUND
    if config.background_rule == "fixed" or not selected_cam.numel():
        return config.background_score
    histogram = torch.histc(selected_cam.amax(dim=1).float(), BINS, 0, 1)
    return float(otsu_threshold(histogram))


def select_maps(
    output: NetworkOutput, class_indices: Sequence[int], background: float
) -> SelectedMaps:
    """Select the maps of the given classes, and propagate the CAM if the output has an affinity.

    Args:
        output: From `predict_multi_scale`.
        class_indices: Classes that the mask may contain, from `select_classes`.
        background: Background score beside the CAM, during propagation too. `NO_BACKGROUND` takes
            the background out of other maps as well.
    """
    selected = _select(output, class_indices, background)
    if background > NO_BACKGROUND or not selected.class_indices:
        return selected
    return _without_background(selected)


def _select(output: NetworkOutput, class_indices: Sequence[int], background: float) -> SelectedMaps:
    """Select maps, with the background that they bring."""
    indices, size = tuple(class_indices), _size(output.cam)
    cam = output.cam[:, list(indices)]
    if not indices:
        return SelectedMaps((), cam, "cam", size, background)
    if output.logits is not None:
        channels = [BACKGROUND, *(index + 1 for index in indices)]
        return SelectedMaps(indices, output.logits[:, channels], "logits", size, background)
    if output.propagation is not None:
        propagated = output.propagation(cam)
        kind: MapKind = "cam" if propagated.shape[1] == len(indices) else "probs"
        return SelectedMaps(indices, propagated, kind, size, background)
    if output.affinity is not None:
        grid = _grid(cam.shape[-2:], output.affinity.shape[-1])
        propagated = propagate_cam(cam, output.affinity, grid, background, output.radius)
        return SelectedMaps(indices, propagated, "probs", size, background)
    return SelectedMaps(indices, cam, "cam", size, background)


def _without_background(selected: SelectedMaps) -> SelectedMaps:
    """Take the background out of logits or probabilities; beside a CAM, its score does that."""
    if selected.kind == "cam":
        return selected
    background, classes = selected.maps[:, :1], selected.maps[:, 1:]
    if selected.kind == "logits":
        lowest = classes.amin(dim=1, keepdim=True) + NO_BACKGROUND
        return selected._replace(maps=torch.cat([lowest, classes], dim=1))
    maps = torch.cat([torch.zeros_like(background), classes + MIN_SHARE], dim=1)
    return selected._replace(maps=_normalized(maps))


def propagate_cam(
    cam: Tensor,
    affinity: Tensor,
    grid: tuple[int, int],
    background: float,
    radius: int,
) -> Tensor:
    """Propagate the CAM of selected classes over the grid of an affinity.

    Args:
        cam: (1, K, h, w) in [0, 1).
        affinity: (1, L, L) in [0, 1].
        grid: (gh, gw), gh * gw = L.
        background: Background score beside the CAM.
        radius: Window of the walk, in positions of the grid.

    Returns:
        (1, 1 + K, gh, gw) probabilities, background first.

    Source:
        Specification 2.7. Departs: sums are brought back to 1, because the 0.1 in the divisor of
        the walk takes a little away everywhere and a refiner expects probabilities.
    """
    scores = probs_with_background(upsample(cam, grid), background)
    propagated = propagate(scores, affinity.float(), radius)
    return propagated / propagated.sum(dim=1, keepdim=True).clamp_min(1e-8)


def refine_maps(
    image: Tensor, selected: SelectedMaps, config: PredictConfig, refiners: Sequence[Refiner]
) -> SelectedMaps:
    """Refine maps by the image; without refiners they stay as they are.

    Args:
        image: (1, 3, H, W) uint8 RGB.
        selected: From `select_maps`.
        config: Confident pseudo-labels, largest side that is refined.
        refiners: Applied in order. Most work at half the size that the network saw, others (the
            dense CRF) at the image's size.

    Source:
        Specification R18 (3) to (5) and 2.11.
    """
    if not selected.class_indices:
        return selected
    views = [
        _refiner_view(image, one, selected.working_size, config.max_side_px) for one in refiners
    ]
    first_size = _size(views[0]) if views else _unrefined_size(image, selected)
    labels = confident_labels_of(config)
    if labels is not None:
        probs = _confident_probs(upsample(selected.maps, first_size), labels)
        for one, view in zip(refiners, views, strict=True):
            probs = one(view, _resize_sets(probs, _size(view)))
        return selected._replace(maps=probs, kind="confident")
    if not refiners:
        return selected
    probs = initial_probs(selected, first_size)
    for one, view in zip(refiners, views, strict=True):
        probs = one(view, upsample(probs, _size(view)))
    return selected._replace(maps=probs, kind="probs")


def maps_to_mask(selected: SelectedMaps, size: tuple[int, int]) -> MaskOutput:
    """Turn maps into a mask of (H, W) `size`.

    Args:
        selected: From `refine_maps`.
        size: (H, W) of the image.

    Source:
        Specification 2.3: without refiner and affinity, a pixel is background where the largest CAM
        is at most the background score. An image without classes is background; where there is no
        background, it is 255.
    """
    maps, indices = selected.maps, selected.class_indices
    if not indices:
        value = BACKGROUND if selected.background > NO_BACKGROUND else IGNORE
        mask = torch.full(size, value, dtype=torch.uint8, device=maps.device)
        return MaskOutput(mask, torch.ones(1, 1, *size, device=maps.device))
    if selected.kind == "confident":
        maps = _resize_sets(maps, size)
        strict, lenient = (_class_values(one.argmax(dim=1), indices) for one in maps.unbind(dim=1))
        return MaskOutput(confident_label(strict, lenient), maps[:, 0])
    if selected.kind == "logits":
        return MaskOutput(_largest_class(maps, size, indices), maps.softmax(dim=1))
    maps = upsample(maps, size)
    if selected.kind == "cam":
        mask = _class_values(_threshold(maps, selected.background), indices)
        return MaskOutput(mask, probs_with_background(maps, selected.background))
    return MaskOutput(_class_values(maps.argmax(dim=1), indices), _normalized(maps))


def ignore_uncertain(output: MaskOutput, min_confidence: float) -> MaskOutput:
    """Set pixels whose largest probability is below `min_confidence` to 255."""
    if min_confidence == 0:
        return output
    largest = upsample(output.probs, _size(output.mask)).amax(dim=1)[0]
    return output._replace(mask=output.mask.masked_fill(largest < min_confidence, IGNORE))


def half_size(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) at which most refiners work if the network saw an image of `size`."""
    return at_least(size[0] // 2, 1), at_least(size[1] // 2, 1)


def initial_probs(selected: SelectedMaps, size: tuple[int, int]) -> Tensor:
    """Return the (1, 1 + K, *size) probabilities that the first refiner receives.

    Source:
        Specification R18 (4): a CAM is resized without aligned corners, as in 2.5; propagated maps
        with aligned corners, as in 2.7.
    """
    if selected.kind == "logits":
        return upsample(selected.maps, size).softmax(dim=1)
    if selected.kind == "cam":
        return probs_with_background(upsample(selected.maps, size), selected.background)
    maps = F.interpolate(selected.maps, size=size, mode="bilinear", align_corners=True)
    return _normalized(maps)


def _confident_probs(cam: Tensor, labels: ConfidentLabels) -> Tensor:
    """(1, 2, 1 + K, h, w) probabilities of a CAM beside each of the two strengths of background."""
    return labels.with_background(cam, (labels.foreground_threshold, labels.background_threshold))


def _resize_sets(probs: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (1, S, C, h, w) probabilities to (H, W) `size`."""
    return upsample(probs.flatten(1, 2), size).reshape(*probs.shape[:3], *size)


def _refiner_view(
    image: Tensor, refiner: Refiner, working_size: tuple[int, int], max_side_px: int | None
) -> Tensor:
    """The image at the size of one refiner: half the working size, or its own within the limit."""
    if not refiner.at_full_size:
        return nearest_pixels(image, half_size(working_size))
    size = limited_size(image.shape[-2:], None, max_side_px)
    if size == _size(image):
        return image
    return nearest_pixels(image, size).round().clamp(0, 255).to(torch.uint8)


def _unrefined_size(image: Tensor, selected: SelectedMaps) -> tuple[int, int]:
    """The size at which a CAM meets its thresholds without refiner: the image's, if it fits."""
    return selected.working_size if is_large(image.shape[-2:]) else _size(image)


def _threshold(cam: Tensor, background: float) -> Tensor:
    """(1, H, W) positions in [background, *classes] of a (1, K, H, W) CAM."""
    value, index = cam.max(dim=1)
    return torch.where(value > background, index + 1, 0)


def _largest_class(logits: Tensor, size: tuple[int, int], class_indices: Sequence[int]) -> Tensor:
    """Mask values of the largest of (1, C, h, w) scores resized to `size`, one plane at a time.

    All planes of a large image at once would take gigabytes.
    """
    largest = upsample(logits[:, :1], size)
    index = torch.zeros(largest.shape[0], *size, dtype=torch.int64, device=logits.device)
    for channel in range(1, logits.shape[1]):
        plane = upsample(logits[:, channel : channel + 1], size)
        index.masked_fill_((plane > largest)[:, 0], channel)
        largest = torch.maximum(largest, plane)
    return _class_values(index, class_indices)


def _grid(size: torch.Size, positions: int) -> tuple[int, int]:
    """Find the (h, w) grid of `positions` over a map of `size`: sides over a stride, rounded up.

    Raises:
        ValueError: If no stride gives that many positions.
    """
    height, width = (max(side, MIN_SIDE_PX) for side in size)
    for stride in STRIDES:
        grid = (-(-height // stride), -(-width // stride))
        if grid[0] * grid[1] == positions:
            return grid
    raise ValueError(
        f"affinity has {positions} positions, which no stride gives for {height} x {width}"
    )


def _class_values(index: Tensor, class_indices: Sequence[int]) -> Tensor:
    """Turn (1, H, W) positions in [background, *class_indices] into (H, W) uint8 mask values."""
    values = [BACKGROUND, *(class_index + 1 for class_index in class_indices)]
    return torch.tensor(values, dtype=torch.uint8).to(index.device)[index[0]]


def _normalized(probs: Tensor) -> Tensor:
    """(N, C, h, w) non-negative scores divided by their sum."""
    return probs / probs.sum(dim=1, keepdim=True).clamp_min(1e-8)


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]
