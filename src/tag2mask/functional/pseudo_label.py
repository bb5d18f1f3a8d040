"""From CAMs to pseudo-labels: background scores, refinement, ignored pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.affinity import propagate
from tag2mask.functional.cam import upsample
from tag2mask.types import BACKGROUND, IGNORE

Refine = Callable[[Tensor, Tensor], Tensor]
"""(image (N, 3, h, w), probs (N, S, C, h, w)) -> refined probs; a `Refiner`, for example."""
Score = float | Tensor
"""A background score in [0, 1]: a number, or a scalar on the device of the maps."""


class SelectedClasses(NamedTuple):
    """The present classes of each image, padded with other classes to K per image."""

    class_indices: Tensor
    """(N, K) int64 class indices in 0..F-1, present ones first; no index repeats in an image."""
    is_present: Tensor
    """(N, K) bool, False for the padding."""


def select_present_classes(tags: Tensor, max_tags: int) -> SelectedClasses:
    """List the present classes of each image in ascending order.

    Args:
        tags: (N, F) in {0, 1}.
        max_tags: K, at least the largest number of tags of one image.

    Example:
        >>> import torch
        >>> selected = select_present_classes(torch.tensor([[0, 1, 1], [1, 0, 0]]), max_tags=2)
        >>> selected.class_indices.tolist(), selected.is_present.tolist()
        ([[1, 2], [0, 1]], [[True, True], [True, False]])
    """
    value, index = tags.topk(max(1, max_tags), dim=1)
    index, order = torch.where(value > 0, index, tags.shape[1] + index).sort(dim=1)
    return SelectedClasses(index % tags.shape[1], value.gather(1, order) > 0)


def probs_with_background(selected_cam: Tensor, background: float) -> Tensor:
    """Compute the softmax over a constant background score and the CAMs of present classes.

    Args:
        selected_cam: (N, K, h, w) in [0, 1].
        background: Background score in [0, 1].

    Returns:
        (N, 1 + K, h, w), sums to 1, background first.
    """
    score = torch.full_like(selected_cam[:, :1], background)
    return torch.cat([score, selected_cam], dim=1).softmax(dim=1)


def with_constant_background(selected_cam: Tensor, backgrounds: Sequence[float]) -> Tensor:
    """Turn CAMs of present classes into one set of probabilities per background score.

    Args:
        selected_cam: (N, K, h, w) in [0, 1].
        backgrounds: S background scores in [0, 1].

    Returns:
        (N, S, 1 + K, h, w), sums to 1, background first. The argmax is that of the scores.

    Source:
        IRN; Specification 4.3. IRN's labels are hard: only the argmax matters.

    Example:
        >>> import torch
        >>> cam = torch.tensor([[[[0.1, 0.2, 0.9]]]])  # one class, three pixels
        >>> probs = with_constant_background(cam, backgrounds=(0.3, 0.15))
        >>> probs.argmax(dim=2)[0, :, 0].tolist()
        [[0, 0, 1], [0, 1, 1]]
    """
    return torch.stack([probs_with_background(selected_cam, score) for score in backgrounds], dim=1)


def with_power_background(selected_cam: Tensor, powers: Sequence[float]) -> Tensor:
    """Turn CAMs of present classes into one set of probabilities per background exponent.

    Args:
        selected_cam: (N, K, h, w) in [0, 1].
        powers: S exponents. Larger values give less background.

    Returns:
        (N, S, 1 + K, h, w): [(1 - max)^power, CAMs] divided by their sum, background first.

    Source:
        PSA, section 3.1; Specification 4.3 and 5.1. Mean field ignores a factor common to all
        classes, so dividing by the sum does not change a dense CRF's result.

    Example:
        >>> import torch
        >>> cam = torch.tensor([[[[0.2, 0.5]]]])
        >>> with_power_background(cam, powers=(1, 4))[0, :, 0].round(decimals=2)
        tensor([[[0.8000, 0.5000]],
        <BLANKLINE>
                [[0.6700, 0.1100]]])
    """
    rest = 1 - selected_cam.amax(dim=1, keepdim=True)
    probs = torch.stack([torch.cat([rest**power, selected_cam], dim=1) for power in powers], dim=1)
    return probs / probs.sum(dim=2, keepdim=True)


def with_background_scores(
    selected_cam: Tensor, is_present: Tensor, backgrounds: tuple[Score, ...], size: tuple[int, int]
) -> Tensor:
    """Resize CAMs and turn them into one set of probabilities per background score.

    Args:
        selected_cam: (N, K, H, W) in [0, 1].
        is_present: (N, K) bool; other classes get probability 0.
        backgrounds: S background scores in [0, 1].
        size: (h, w) of the result.

    Returns:
        (N, S, K + 1, h, w), sums to 1, background first.

    Source:
        Specification 2.5: the CAMs are resized without aligned corners, then softmax over
        [background, CAMs of the present classes]. The result is nearly uniform by design and must
        not be sharpened.
    """
    resized = upsample(selected_cam, size)
    resized = resized.masked_fill(~is_present[:, :, None, None], -torch.inf)
    # Added on the device: to copy numbers to it, or to fill with a scalar of it, would synchronize.
    first = torch.stack([selected_cam.new_zeros((1, *size)) + score for score in backgrounds])
    first = first.expand(selected_cam.shape[0], -1, -1, -1, -1)  # (N, S, 1, h, w)
    probs = torch.cat([first, resized[:, None].expand(-1, len(backgrounds), -1, -1, -1)], dim=2)
    return probs.softmax(dim=2)


def refined_labels(
    image: Tensor,
    selected_cam: Tensor,
    selected: SelectedClasses,
    refine: Refine,
    backgrounds: tuple[Score, ...],
) -> Tensor:
    """Refine the probabilities for each background score and take the argmax per pixel.

    Args:
        image: (N, 3, H, W) uint8 RGB.
        selected_cam: (N, K, H, W) CAMs of the classes of `selected`, in [0, 1].
        selected: From `select_present_classes`.
        refine: A refiner, applied at half resolution.
        backgrounds: S background scores in [0, 1].

    Returns:
        (N, S, H, W) int64 in 0..F.

    Source:
        AFA, section 3.4; Specification 2.4 and 2.5.
    """
    size = _half_size(selected_cam)
    probs = with_background_scores(selected_cam, selected.is_present, backgrounds, size)
    return _refined_classes(image, probs, selected.class_indices, refine)


def _half_size(maps: Tensor) -> tuple[int, int]:
    return max(1, maps.shape[-2] // 2), max(1, maps.shape[-1] // 2)


def _refined_classes(image: Tensor, probs: Tensor, class_indices: Tensor, refine: Refine) -> Tensor:
    """Refine (N, S, K + 1, h, w) probabilities; return (N, S, H, W) labels at the image's size."""
    batch, count, channels = probs.shape[:3]
    size = image.shape[-2:]
    probs = refine(upsample(image.float(), probs.shape[-2:]), probs)
    full = upsample(probs.flatten(1, 2), size).view(batch, count, channels, *size)
    winner = _argmax_few(full)  # (N, S, H, W)
    background = class_indices.new_full((batch, 1), BACKGROUND)
    mask_values = torch.cat([background, class_indices + 1], dim=1)
    mask_values = mask_values[:, None, :, None, None].expand(-1, count, -1, *size)
    return mask_values.gather(2, winner[:, :, None]).squeeze(2)


def _argmax_few(probs: Tensor) -> Tensor:
    """Compute the argmax over axis 2 of (N, S, C, H, W) by comparing C planes.

    For few classes this is faster than `Tensor.argmax`, which reads a strided axis pixel by pixel.
    """
    largest = probs[:, :, 0]
    winner = torch.zeros(largest.shape, dtype=torch.int64, device=probs.device)
    for channel in range(1, probs.shape[2]):
        larger = probs[:, :, channel] > largest
        winner.masked_fill_(larger, channel)
        largest = torch.maximum(largest, probs[:, :, channel])
    return winner


def pseudo_label(
    image: Tensor,
    selected_cam: Tensor,
    selected: SelectedClasses,
    valid: Tensor,
    refine: Refine,
    *,
    foreground_threshold: Score = 0.55,
    background_threshold: Score = 0.35,
) -> Tensor:
    """Make training targets: confident foreground, confident background, the rest ignored.

    Args:
        image: (N, 3, H, W) uint8 RGB.
        selected_cam: (N, K, H, W) CAMs of the classes of `selected`, in [0, 1].
        selected: From `select_present_classes`.
        valid: (N, H, W) bool, False on crop padding, which is ignored.
        refine: A refiner, applied at half resolution.
        foreground_threshold: Background score that a confident foreground class exceeds.
        background_threshold: Background score that exceeds all classes at confident background.

    Returns:
        (N, H, W) int64 in 0..F and 255.

    Source:
        AFA, section 3.4; Specification 2.5.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 3, 4, 12, dtype=torch.uint8)
        >>> cam = torch.tensor([0.1, 0.45, 0.9]).repeat_interleave(4).expand(1, 1, 4, 12)
        >>> selected = select_present_classes(torch.tensor([[0, 1]]), max_tags=1)
        >>> valid = torch.ones(1, 4, 12, dtype=torch.bool)
        >>> label = pseudo_label(image, cam, selected, valid, refine=lambda image, probs: probs)
        >>> label[0, 0, [1, 5, 10]].tolist()
        [0, 255, 2]
    """
    backgrounds = (foreground_threshold, background_threshold)
    strict, lenient = refined_labels(image, selected_cam, selected, refine, backgrounds).unbind(1)
    return _confident_or_ignore(strict, lenient, valid)


def propagated_label(
    image: Tensor,
    selected_cam: Tensor,
    selected: SelectedClasses,
    valid: Tensor,
    refine: Refine,
    affinity: Tensor,
    size: tuple[int, int],
    *,
    foreground_threshold: Score = 0.55,
    background_threshold: Score = 0.35,
    radius: int = 8,
) -> Tensor:
    """Make training targets from CAMs that are propagated along the affinity first.

    Args:
        image: (N, 3, H, W) uint8 RGB.
        selected_cam: (N, K, H, W) CAMs of the classes of `selected`, in [0, 1].
        selected: From `select_present_classes`.
        valid: (N, H, W) bool, False on crop padding, which is ignored.
        refine: A refiner, applied at half resolution. Its input sums to slightly less than 1 at
            positions with little affinity to others.
        affinity: (N, L, L) in [0, 1].
        size: (h, w) of the affinity's map, h * w = L.
        foreground_threshold: Background score that a confident foreground class exceeds.
        background_threshold: Background score that exceeds all classes at confident background.
        radius: Half side of the propagation window, in positions.

    Returns:
        (N, H, W) int64 in 0..F and 255.

    Source:
        AFA, section 3.3; Specification 2.7. Departs on crops with padding: the released code
        refines each image without its padding; here padding takes the color and the scores of the
        nearest real pixel, so that images stay batched. 99.9 % of the pixels of such crops agree.
    """
    backgrounds = (foreground_threshold, background_threshold)
    scores = with_background_scores(
        upsample(selected_cam, size), selected.is_present, backgrounds, size
    )
    propagated = upsample(propagate(scores.flatten(1, 2), affinity, radius), image.shape[-2:])
    propagated = fill_padding(propagated, valid)
    propagated = F.interpolate(
        propagated, size=_half_size(selected_cam), mode="bilinear", align_corners=True
    )
    probs = propagated.view(*scores.shape[:3], *propagated.shape[-2:])
    strict, lenient = _refined_classes(
        fill_padding(image, valid), probs, selected.class_indices, refine
    ).unbind(1)
    return _confident_or_ignore(strict, lenient, valid)


def _confident_or_ignore(strict: Tensor, lenient: Tensor, valid: Tensor) -> Tensor:
    """Combine both labels and ignore crop padding."""
    return torch.where(valid, confident_label(strict, lenient), IGNORE)


def confident_label(strict: Tensor, lenient: Tensor) -> Tensor:
    """Combine the labels for a high and for a low background score.

    Args:
        strict: Integers in 0..F, any shape: label for the high background score.
        lenient: Label for the low background score.

    Returns:
        Same shape: the class of `strict` where it is foreground, background where both are, 255
        elsewhere.

    Source:
        Specification 2.5 and 4.3 (IRN). Departs for PSA, whose code labels the rare pixels
        background that only `strict` calls foreground.

    Example:
        >>> import torch
        >>> confident_label(torch.tensor([0, 0, 3]), torch.tensor([0, 3, 3])).tolist()
        [0, 255, 3]
    """
    background = (strict == BACKGROUND) & (lenient == BACKGROUND)
    label = torch.where(strict == BACKGROUND, IGNORE, strict)
    return torch.where(background, BACKGROUND, label)


def fill_padding(maps: Tensor, valid: Tensor) -> Tensor:
    """Give crop padding the values of the nearest real pixel.

    Args:
        maps: (N, D, H, W).
        valid: (N, H, W) bool, True on one rectangle per image.

    Returns:
        (N, D, H, W).
    """
    batch, channels, height, width = maps.shape
    rows, columns = _nearest_true(valid.any(dim=2)), _nearest_true(valid.any(dim=1))
    maps = maps.gather(2, rows.view(batch, 1, height, 1).expand(-1, channels, -1, width))
    return maps.gather(3, columns.view(batch, 1, 1, width).expand(-1, channels, height, -1))


def _nearest_true(real: Tensor) -> Tensor:
    """Find, for each position, the nearest True of an (N, S) mask with one run of True: (N, S)."""
    size = real.shape[1]
    position = torch.arange(size, device=real.device)
    first = real.int().argmax(dim=1, keepdim=True)
    last = size - 1 - real.flip(1).int().argmax(dim=1, keepdim=True)
    return torch.minimum(torch.maximum(position, first), last)
