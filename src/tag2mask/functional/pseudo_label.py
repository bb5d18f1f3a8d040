"""From class evidence to label maps: thresholds, background scores, refinement, ignored pixels."""

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
"""(image (N, 3, h, w), prob (N, S, C, h, w)) -> refined prob, as a Refiner does."""


class SelectedClasses(NamedTuple):
    """The classes of each image, packed to the front."""

    classes: Tensor
    """(N, K) int64 class indices, in rising order, each but once per image."""
    present: Tensor
    """(N, K) bool: which of them the image really has; the others fill the row up."""


def select_present_classes(tags: Tensor, max_tags: int) -> SelectedClasses:
    """Pack the present classes of each image to the front.

    Args:
        tags: (N, F) in {0, 1}.
        max_tags: K, at least the largest number of tags of one image.
    """
    value, index = tags.topk(max(1, max_tags), dim=1)
    index, order = torch.where(value > 0, index, tags.shape[1] + index).sort(dim=1)
    return SelectedClasses(index % tags.shape[1], value.gather(1, order) > 0)


def cam_to_label(
    cam: Tensor, tags: Tensor, background: float, *, high: float | None = None, low: float = 0.0
) -> Tensor:
    """Threshold evidence into a label map.

    Args:
        cam: (N, F, H, W) in [0, 1].
        tags: (N, F) in {0, 1}; absent classes never win.
        background: Pixels whose strongest evidence is at most this are background.
        high: If given, two cuts take the place of `background`: at most `low` is background,
            between the cuts is ignore.
        low: See `high`.

    Returns:
        (N, H, W) int64, 0..F and 255.

    Source:
        AFA, Eq. 3 with Specification 2.3.
    """
    value, index = (cam * tags[:, :, None, None]).max(dim=1)
    label = index + 1
    if high is None:
        return torch.where(value <= background, BACKGROUND, label)
    label = torch.where(value <= high, IGNORE, label)
    return torch.where(value <= low, BACKGROUND, label)


def probs_with_background(selected_cam: Tensor, background: float) -> Tensor:
    """Softmax over a constant background and evidence of classes that are all present.

    Args:
        selected_cam: (N, K, h, w) in [0, 1].
        background: Its score, in [0, 1].

    Returns:
        (N, 1 + K, h, w), sums to 1, background first.
    """
    level = torch.full_like(selected_cam[:, :1], background)
    return torch.cat([level, selected_cam], dim=1).softmax(dim=1)


def with_constant_background(selected_cam: Tensor, levels: Sequence[float]) -> Tensor:
    """Set evidence of present classes beside each of S scores of background, as probabilities.

    Args:
        selected_cam: (N, K, h, w) in [0, 1].
        levels: S scores in [0, 1].

    Returns:
        (N, S, 1 + K, h, w), sums to 1, background first; its largest entry is that of the scores.

    Source:
        IRN's labels (Specification 4.3), which are hard: only the largest entry counts.
    """
    return torch.stack([probs_with_background(selected_cam, level) for level in levels], dim=1)


def with_power_background(selected_cam: Tensor, powers: Sequence[float]) -> Tensor:
    """Set evidence of present classes beside S powers of what the strongest leaves to background.

    Args:
        selected_cam: (N, K, h, w) in [0, 1].
        powers: S exponents; larger makes background rarer.

    Returns:
        (N, S, 1 + K, h, w) [(1 - max)^power, evidence], brought to sum 1.

    Source:
        PSA, section 3.1 with Specification 4.3 and 5.1: a mean field does not see a factor
        that all classes share, so that dividing by the sum changes nothing there.
    """
    rest = 1 - selected_cam.amax(dim=1, keepdim=True)
    probs = torch.stack([torch.cat([rest**power, selected_cam], dim=1) for power in powers], dim=1)
    return probs / probs.sum(dim=2, keepdim=True)


def with_background_scores(
    selected_cam: Tensor, present: Tensor, backgrounds: tuple[float, ...], size: tuple[int, int]
) -> Tensor:
    """Set evidence of present classes beside each background score, as probabilities.

    Args:
        selected_cam: (N, K, H, W) in [0, 1].
        present: (N, K) bool; other classes get probability 0.
        backgrounds: S scores in [0, 1].
        size: (h, w) of the result.

    Returns:
        (N, S, K + 1, h, w), sums to 1, background first.

    Source:
        Specification 2.5: softmax over [background, evidence of the present classes]; the
        result is meant to be nearly flat and must not be sharpened.
    """
    chosen = F.interpolate(selected_cam, size=size, mode="bilinear", align_corners=True)
    chosen = chosen.masked_fill(~present[:, :, None, None], -torch.inf)
    # Filled on the device: copying a list of numbers there would wait for it.
    first = torch.stack([selected_cam.new_full((1, *size), level) for level in backgrounds])
    first = first.expand(selected_cam.shape[0], -1, -1, -1, -1)  # (N, S, 1, h, w)
    probs = torch.cat([first, chosen[:, None].expand(-1, len(backgrounds), -1, -1, -1)], dim=2)
    return probs.softmax(dim=2)


def refined_labels(
    image: Tensor,
    selected_cam: Tensor,
    selected: SelectedClasses,
    refine: Refine,
    backgrounds: tuple[float, ...],
) -> Tensor:
    """Refine evidence against each background score and take the winner per pixel.

    Args:
        image: (N, 3, H, W) uint8 RGB.
        selected_cam: (N, K, H, W) evidence of the classes of `selected`, in [0, 1].
        selected: From `select_present_classes`.
        refine: A refiner; works at half resolution here.
        backgrounds: S scores in [0, 1].

    Returns:
        (N, S, H, W) int64 in 0..F.

    Source:
        AFA, section 3.4 with Specification 2.4 and 2.5.
    """
    probs = with_background_scores(selected_cam, selected.present, backgrounds, _half(selected_cam))
    return _refined_classes(image, probs, selected.classes, refine)


def _half(maps: Tensor) -> tuple[int, int]:
    return max(1, maps.shape[-2] // 2), max(1, maps.shape[-1] // 2)


def _refined_classes(image: Tensor, probs: Tensor, selected: Tensor, refine: Refine) -> Tensor:
    """Refine (N, S, K + 1, h, w) scores; (N, S, H, W) class values at the image's size."""
    batch, count, channels = probs.shape[:3]
    size = image.shape[-2:]
    probs = refine(upsample(image.float(), probs.shape[-2:]), probs)
    full = upsample(probs.flatten(1, 2), size).view(batch, count, channels, *size)
    winner = _argmax_few(full)  # (N, S, H, W)
    ids = torch.cat([selected.new_full((batch, 1), BACKGROUND), selected + 1], dim=1)
    ids = ids[:, None, :, None, None].expand(-1, count, -1, *size)
    return ids.gather(2, winner[:, :, None]).squeeze(2)


def _argmax_few(probs: Tensor) -> Tensor:
    """Argmax over axis 2 of (N, S, C, H, W) for few classes, by C comparisons of planes.

    `Tensor.argmax` walks a strided axis one pixel at a time.
    """
    best = probs[:, :, 0]
    winner = torch.zeros(best.shape, dtype=torch.int64, device=probs.device)
    for channel in range(1, probs.shape[2]):
        better = probs[:, :, channel] > best
        winner.masked_fill_(better, channel)
        best = torch.maximum(best, probs[:, :, channel])
    return winner


def pseudo_label(
    image: Tensor,
    selected_cam: Tensor,
    selected: SelectedClasses,
    valid: Tensor,
    refine: Refine,
    *,
    high: float = 0.55,
    low: float = 0.35,
) -> Tensor:
    """Make training targets: sure foreground, sure background, the rest ignored.

    Args:
        image: (N, 3, H, W) uint8 RGB.
        selected_cam: (N, K, H, W) evidence of the classes of `selected`, in [0, 1].
        selected: From `select_present_classes`.
        valid: (N, H, W) bool, False on crop padding, which is ignored.
        refine: A refiner.
        high: Background score that foreground must beat to be sure.
        low: Background score against which background must still win to be sure.

    Returns:
        (N, H, W) int64 in 0..F and 255.

    Source:
        AFA, section 3.4 with Specification 2.5.
    """
    strict, lenient = refined_labels(image, selected_cam, selected, refine, (high, low)).unbind(1)
    return _confident_or_ignore(strict, lenient, valid)


def propagated_label(
    image: Tensor,
    selected_cam: Tensor,
    selected: SelectedClasses,
    valid: Tensor,
    refine: Refine,
    affinity: Tensor,
    grid: tuple[int, int],
    *,
    high: float = 0.55,
    low: float = 0.35,
    radius: int = 8,
) -> Tensor:
    """Make training targets from evidence that has spread along affinities first.

    Args:
        image: (N, 3, H, W) uint8 RGB.
        selected_cam: (N, K, H, W) evidence of the classes of `selected`, in [0, 1].
        selected: From `select_present_classes`.
        valid: (N, H, W) bool, False on crop padding, which is ignored.
        refine: A refiner. What it gets sums to a little less than 1 where few cells are alike.
        affinity: (N, L, L) in [0, 1].
        grid: (h, w) of the affinity, h * w = L.
        high: Background score that foreground must beat to be sure.
        low: Background score against which background must still win to be sure.
        radius: Window of the walk, in cells.

    Returns:
        (N, H, W) int64 in 0..F and 255.

    Source:
        AFA, section 3.3 with Specification 2.7. Departs on crops with padding: there each
        image is cut out and refined alone; here padding takes the nearest real pixel's color and
        scores, so that the batch stays whole. On crops of images 99.9 % of the pixels agree.
    """
    scores = with_background_scores(
        upsample(selected_cam, grid), selected.present, (high, low), grid
    )
    moved = upsample(propagate(scores.flatten(1, 2), affinity, radius), image.shape[-2:])
    moved = fill_padding(moved, valid)
    moved = F.interpolate(moved, size=_half(selected_cam), mode="bilinear", align_corners=True)
    probs = moved.view(*scores.shape[:3], *moved.shape[-2:])
    strict, lenient = _refined_classes(
        fill_padding(image, valid), probs, selected.classes, refine
    ).unbind(1)
    return _confident_or_ignore(strict, lenient, valid)


def _confident_or_ignore(strict: Tensor, lenient: Tensor, valid: Tensor) -> Tensor:
    """Foreground where it wins even the strict cut, background where it wins the lenient one."""
    return torch.where(valid, confident_label(strict, lenient), IGNORE)


def confident_label(strict: Tensor, lenient: Tensor) -> Tensor:
    """Keep what two cuts agree on.

    Args:
        strict: Integers, 0..F: labels that a high score of background left.
        lenient: The same after a low one.

    Returns:
        Same shape: the class where the strict cut found one, background where neither found any,
        255 elsewhere.

    Source:
        Specification 2.5 and 4.3 (IRN). Departs for PSA, whose code calls the rare pixel
        background that is a class by the strict cut alone.
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
    """(N, S) bool with one run of True -> (N, S) int64 places, each moved to the run's near end."""
    size = real.shape[1]
    place = torch.arange(size, device=real.device)
    first = real.int().argmax(dim=1, keepdim=True)
    last = size - 1 - real.flip(1).int().argmax(dim=1, keepdim=True)
    return torch.minimum(torch.maximum(place, first), last)
