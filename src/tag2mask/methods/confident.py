"""Confident pseudo-labels: pixels whose class holds against two strengths of background.

IRN and PSA learn from such labels. Each brings its own way to set the CAM beside a background
(`Method.confident_labels`); a label stage names the method (`predict.confident.name`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

WithBackground = Callable[[Tensor, Sequence[float]], Tensor]
"""((N, K, h, w) CAM in [0, 1], S strengths) -> (N, S, 1 + K, h, w) probabilities."""


class ConfidentLabels(NamedTuple):
    """How a method turns a CAM into confident pseudo-labels."""

    with_background: WithBackground
    """Sets the CAM beside each strength of background."""
    foreground_threshold: float
    """Strength of background that confident foreground must still beat."""
    background_threshold: float
    """Strength of background that confident background must still beat."""
