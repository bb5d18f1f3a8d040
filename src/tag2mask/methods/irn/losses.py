"""The loss of IRN's displacement branch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tag2mask.functional.pair_affinity import PairLabels, divide_by_count
from tag2mask.functional.stencil import Offset, pair_windows


def displacement_losses(
    displacement: Tensor, labels: PairLabels, offsets: Sequence[Offset]
) -> tuple[Tensor, Tensor]:
    """Compare differences of displacements with the offsets between pixels.

    Two pixels of one object that both point to its center have displacements that differ by
    their offset. Displacements of two background pixels should not differ.

    Args:
        displacement: (N, 2, h, w) pixels (down, right) to the object's center.
        labels: From `pair_labels`.
        offsets: The K neighbors.

    Returns:
        Mean L1 error of foreground pairs and of background pairs, scalars in pixels per axis.

    Source:
        IRN (arXiv 1904.05044), Eq. 4 and 5; Specification 4.3.
    """
    foreground_sum, background_sum = displacement.new_zeros(()), displacement.new_zeros(())
    for tap, offset in enumerate(offsets):
        pixel, neighbor = pair_windows(offset, displacement.shape[-2:])
        difference = displacement[..., *pixel] - displacement[..., *neighbor]  # (N, 2, h', w')
        down, right = difference[:, 0] - offset[0], difference[:, 1] - offset[1]
        error = (down.abs() + right.abs()) / 2
        foreground_sum = foreground_sum + (error * labels.foreground[:, tap, *pixel]).sum()
        error = difference.abs().mean(dim=1)
        background_sum = background_sum + (error * labels.background[:, tap, *pixel]).sum()
    return (
        divide_by_count(foreground_sum, labels.foreground),
        divide_by_count(background_sum, labels.background),
    )
