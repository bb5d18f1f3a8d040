"""Affinities of near pixels that a network learns: from features or boundaries; labels and loss.

A pair is a pixel and its neighbor at one of K offsets (`half_disc_offsets`); its value stands at
that pixel, in an (N, K, h, w) tensor, and is 0 where the neighbor lies outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.functional.stencil import Offset, pair_windows
from tag2mask.types import BACKGROUND, IGNORE

EPS = 1e-5
"""Added to what a logarithm is taken of, and to numbers of pairs (Specification 4.3)."""


class PairLabels(NamedTuple):
    """What is known of pairs, each (N, K, h, w) bool; none of the three where a label is 255."""

    background: Tensor
    """Both are background."""
    foreground: Tensor
    """Both are of one class."""
    different: Tensor


class PairLosses(NamedTuple):
    """Mean cross-entropy of the three kinds of pairs; 0 where there are none."""

    background: Tensor
    foreground: Tensor
    different: Tensor

    def total(self) -> Tensor:
        """Half for pairs that belong together, half for those that do not."""
        return (self.background + self.foreground) / 4 + self.different / 2


def pair_labels(label: Tensor, offsets: Sequence[Offset]) -> PairLabels:
    """Compare the labels of pairs.

    Args:
        label: (N, h, w) integers, 0 background, 255 ignore.
        offsets: The K neighbors.
    """
    num, height, width = label.shape
    none = torch.zeros(num, len(offsets), height, width, dtype=torch.bool, device=label.device)
    found = PairLabels(none, none.clone(), none.clone())
    for tap, offset in enumerate(offsets):
        here, there = pair_windows(offset, (height, width))
        one, other = label[:, *here], label[:, *there]
        known = (one != IGNORE) & (other != IGNORE)
        same = known & (one == other)
        found.background[:, tap, *here] = same & (one == BACKGROUND)
        found.foreground[:, tap, *here] = same & (one != BACKGROUND)
        found.different[:, tap, *here] = known & ~same
    return found


def pair_losses(affinity: Tensor, labels: PairLabels) -> PairLosses:
    """Cross-entropy of affinities, averaged over each kind of pairs in the batch of all processes.

    Args:
        affinity: (N, K, h, w) in [0, 1].
        labels: From `pair_labels`.

    Source:
        PSA, Eq. 5 to 8, and IRN, Eq. 6; Specification 4.3. Departs: every pair inside the
        crop counts; the released codes leave out those that start within the radius of its edges.
    """
    together, apart = -(affinity + EPS).log(), -(1 + EPS - affinity).log()
    return PairLosses(
        masked_mean(together, labels.background),
        masked_mean(together, labels.foreground),
        masked_mean(apart, labels.different),
    )


def masked_mean(value: Tensor, chosen: Tensor) -> Tensor:
    """Mean of (N, ...) values where `chosen` is true, over all processes; 0 where it never is."""
    return _ratio((value * chosen).sum(), chosen)


def _ratio(total: Tensor, chosen: Tensor) -> Tensor:
    """Sum over the number of chosen pairs, both over all processes."""
    return sum_over_ranks(total) / (sum_over_ranks(chosen.sum().to(total.dtype)) + EPS)


def feature_affinity(features: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Compare learned features: exp(-mean over channels of |f_i - f_j|).

    Args:
        features: (N, D, h, w) float.
        offsets: The K neighbors.

    Returns:
        (N, K, h, w) in [0, 1].

    Source:
        PSA, Eq. 2 with Specification 4.3.
    """
    gap: Tensor = _MeanGap.apply(features, tuple(offsets))  # type: ignore[no-untyped-call]  # torch
    return (-gap).exp() * inside(offsets, features)


def boundary_affinity(edge: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Two pixels belong together if no boundary crosses the line between them: 1 - its strongest.

    Args:
        edge: (N, 1, h, w) strength of boundaries in [0, 1].
        offsets: The K neighbors.

    Returns:
        (N, K, h, w) in [0, 1]. The gradient goes to the strongest pixel of each line (of equals, to
        each).

    Source:
        IRN, Eq. 1 with Specification 4.3.
    """
    peak: Tensor = _LinePeak.apply(edge[:, 0], tuple(offsets))  # type: ignore[no-untyped-call]
    return (1 - peak) * inside(offsets, edge)


def inside(offsets: Sequence[Offset], like: Tensor) -> Tensor:
    """(K, h, w) 1 where the neighbor lies inside maps of the size, type and device of `like`."""
    size = like.shape[-2:]
    mask = like.new_zeros(len(offsets), *size)
    for tap, offset in enumerate(offsets):
        here, _ = pair_windows(offset, size)
        mask[tap, *here] = 1
    return mask


def line_cells(offset: Offset) -> list[Offset]:
    """Cells that the line from (0, 0) to `offset` runs through, both ends among them.

    Source:
        IRN's released code: all cells of the box between the ends whose center is less than one
        cell from the straight line through them.
    """
    dy, dx = offset
    rows = range(min(0, dy), max(0, dy) + 1)
    columns = range(min(0, dx), max(0, dx) + 1)
    near = dy * dy + dx * dx
    return [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < near]


class _MeanGap(torch.autograd.Function):
    """(N, D, h, w) features -> (N, K, h, w) mean over D of |f_i - f_j|, 0 for pairs that leave.

    The differences are taken again on the way back: to keep them would need K times the memory of
    the features.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, offsets: tuple[Offset, ...]) -> Tensor:
        ctx.save_for_backward(features)
        ctx.offsets = offsets
        num, _, height, width = features.shape
        gap = features.new_zeros(num, len(offsets), height, width)
        for tap, offset in enumerate(offsets):
            here, there = pair_windows(offset, (height, width))
            gap[:, tap, *here] = (features[..., *here] - features[..., *there]).abs_().mean(dim=1)
        return gap

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        share = torch.zeros_like(features)
        for tap, offset in enumerate(ctx.offsets):
            here, there = pair_windows(offset, features.shape[-2:])
            sign = (features[..., *here] - features[..., *there]).sign_()
            sign *= grad[:, tap : tap + 1, *here] / features.shape[1]
            share[..., *here] += sign
            share[..., *there] -= sign
        return share, None


class _LinePeak(torch.autograd.Function):
    """(N, h, w) maps -> (N, K, h, w) largest value along the line of each pair, 0 if it leaves.

    On the way back a cell is known by its value: each of several equal ones gets the gradient. To
    keep one value per cell of each line would need twelve times the memory.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, offsets: tuple[Offset, ...]) -> Tensor:
        num, height, width = maps.shape
        peak = maps.new_zeros(num, len(offsets), height, width)
        for tap, offset in enumerate(offsets):
            here, _ = pair_windows(offset, (height, width))
            first, *rest = _line_windows(offset, (height, width))
            best = maps[:, *first].clone()
            for window in rest:
                torch.maximum(best, maps[:, *window], out=best)
            peak[:, tap, *here] = best
        ctx.save_for_backward(maps, peak)
        ctx.offsets = offsets
        return peak

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        maps, peak = ctx.saved_tensors
        share = torch.zeros_like(maps)
        for tap, offset in enumerate(ctx.offsets):
            here, _ = pair_windows(offset, grad.shape[-2:])
            part, best = grad[:, tap, *here], peak[:, tap, *here].contiguous()
            for window in _line_windows(offset, grad.shape[-2:]):
                share[:, *window].addcmul_(part, (maps[:, *window] == best).to(part.dtype))
        return share, None


def _line_windows(offset: Offset, size: Sequence[int]) -> list[tuple[slice, slice]]:
    """For each cell of the line: where it lies, for all pixels whose neighbor is inside."""
    (rows, columns), _ = pair_windows(offset, size)
    return [
        (slice(rows.start + y, rows.stop + y), slice(columns.start + x, columns.stop + x))
        for y, x in line_cells(offset)
    ]


def cell_labels(label: Tensor, size: Sequence[int]) -> Tensor:
    """(N, H, W) integer labels to the label at the middle of each cell of an (h, w) grid."""
    cells = F.interpolate(label[:, None].float(), size=tuple(size), mode="nearest-exact")
    return cells[:, 0].to(label.dtype)


def displacement_losses(
    way: Tensor, labels: PairLabels, offsets: Sequence[Offset]
) -> tuple[Tensor, Tensor]:
    """Two pixels of a thing know the way to its middle if their ways differ by their offset.

    Args:
        way: (N, 2, h, w) cells (down, right) to the middle.
        labels: From `pair_labels`.
        offsets: The K neighbors.

    Returns:
        Mean distance from that over foreground pairs, and from no difference over background.

    Source:
        IRN, Eq. 4 and 5 with Specification 4.3.
    """
    foreground_sum, background_sum = way.new_zeros(()), way.new_zeros(())
    for tap, offset in enumerate(offsets):
        here, there = pair_windows(offset, way.shape[-2:])
        gap = way[..., *here] - way[..., *there]  # (N, 2, h', w')
        missed = ((gap[:, 0] - offset[0]).abs() + (gap[:, 1] - offset[1]).abs()) / 2
        foreground_sum = foreground_sum + (missed * labels.foreground[:, tap, *here]).sum()
        level = gap.abs().mean(dim=1)
        background_sum = background_sum + (level * labels.background[:, tap, *here]).sum()
    return (
        _ratio(foreground_sum, labels.foreground),
        _ratio(background_sum, labels.background),
    )
