"""Thresholds of confident pseudo-labels that follow the maps during training, without masks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tag2mask.functional.otsu import BINS, otsu_threshold, score_histogram
from tag2mask.functional.pseudo_label import Score, SelectedClasses

ThresholdRule = Literal["fixed", "auto"]
DECAY = 0.99
"""Weight of the earlier counts at each batch: the histogram covers about 100 batches."""


class LabelThresholds(nn.Module):
    """The two background scores of confident pseudo-labels.

    With `auto`, their mean is Otsu's threshold of the scores of the last batches, which stand for
    the best background score of the maps; their distance stays. The histogram is a buffer, so
    weights and states contain it, and it is the same in all processes.

    Args:
        rule: `fixed`, or `auto`.
        foreground: Background score that confident foreground must exceed.
        background: Background score that still exceeds confident background.

    Source:
        AFA supplement, Table 5; Specification 2.5 and R16: the mean is the best background score of
        the network's own maps, and both thresholds lie 0.10 from it.
    """

    def __init__(self, rule: ThresholdRule, foreground: float, background: float) -> None:
        super().__init__()
        self.fixed = (foreground, background)
        self.histogram: Tensor | None
        self.register_buffer("histogram", torch.zeros(BINS) if rule == "auto" else None)

    @torch.no_grad()
    def forward(
        self, selected_cam: Tensor, selected: SelectedClasses, valid: Tensor
    ) -> tuple[Score, Score]:
        """Return the foreground and the background threshold for the maps of a batch.

        Args:
            selected_cam: (N, K, H, W) CAMs of the classes of `selected`, in [0, 1].
            selected: From `select_present_classes`.
            valid: (N, H, W) bool, False on crop padding.

        Returns:
            Numbers, or scalars on the device: nothing waits for their value.
        """
        if self.histogram is None:
            return self.fixed
        present = selected.is_present[:, :, None, None]
        score = selected_cam.masked_fill(~present, 0).amax(dim=1)
        shown = valid & present.any(dim=1)
        self.histogram.mul_(DECAY).add_(score_histogram(score, shown))
        half = (self.fixed[0] - self.fixed[1]) / 2
        center = otsu_threshold(self.histogram).clamp(half, 1 - half)
        return center + half, center - half
