"""Gated pyramid pooling (GPP): a map of class evidence gives its own attention."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tag2mask.config.schema import Config
from tag2mask.functional.pooling import LEVELS, Parts, attended_score, gated_pyramid


class GPPConfig(Config):
    """Switches of gated pyramid pooling; the defaults are the paper's."""

    parts: Parts = "both"
    """Evidence that is pooled: for and against a class, or one alone (AEFT supplement, 1.2)."""
    gate_negative: bool = True
    """Gate negative evidence too; off is beta = 1 of the supplement, section 1.2."""


class GatedPyramid(nn.Module):
    """The gates of a pyramid with levels 2, 4, 8, 16 over the map itself.

    Args:
        num_foreground: F, channels of the map.
        config: Switches.

    Source:
        AEFT, Eq. 4 and 5 with Specification 4.1: per gate a 3 x 3 convolution without bias
        for either sign.
    """

    def __init__(self, num_foreground: int, config: GPPConfig) -> None:
        super().__init__()
        self.parts = config.parts
        groups = 2 if config.gate_negative else 1
        self.gates = nn.ModuleList(
            nn.Conv2d(
                2 * groups * num_foreground, 2 * groups, 3, padding=1, bias=False, groups=groups
            )
            for _ in LEVELS[1:]
        )

    def forward(self, cam: Tensor) -> Tensor:
        """Turn an (N, F, h, w) signed map into its signed attention of the same shape."""
        weights = [cast(Tensor, gate.weight).float() for gate in self.gates]
        with torch.autocast(cam.device.type, enabled=False):  # products of small numbers
            return gated_pyramid(cam.float(), weights)

    def score(self, cam: Tensor, attention: Tensor) -> Tensor:
        """(N, F) logits of a map and its attention."""
        return attended_score(cam.float(), attention, self.parts)
