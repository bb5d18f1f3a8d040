"""Gated pyramid pooling (GPP): an attention map computed from the CAM itself."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tag2mask.config.schema import Config
from tag2mask.functional.pooling import LEVELS, Parts, attended_score, gated_pyramid


class GPPConfig(Config):
    """Settings of gated pyramid pooling; the defaults are those of the paper."""

    parts: Parts = "both"
    """Activations that are pooled: both signs or only one (AEFT supplement, section 1.2)."""
    gate_negative: bool = True
    """Gate negative activations too; false is beta = 1 of the supplement, section 1.2."""


class GatedPyramid(nn.Module):
    """Gated pyramid pooling with levels 2, 4, 8 and 16.

    Args:
        num_foreground: F, channels of the CAM.
        config: Settings.

    Source:
        AEFT, Eq. 4 and 5; Specification 4.1: each gate has a 3 x 3 convolution without bias for
        each sign.

    Example:
        >>> import torch
        >>> gpp = GatedPyramid(num_foreground=20, config=GPPConfig())
        >>> cam = torch.randn(2, 20, 28, 28)
        >>> attention = gpp(cam)
        >>> attention.shape, gpp.score(cam, attention).shape
        (torch.Size([2, 20, 28, 28]), torch.Size([2, 20]))
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
        """Compute the signed attention map of a signed (N, F, h, w) CAM."""
        weights = [cast(Tensor, gate.weight).float() for gate in self.gates]
        with torch.autocast(cam.device.type, enabled=False):  # products of small numbers
            return gated_pyramid(cam.float(), weights)

    def score(self, cam: Tensor, attention: Tensor) -> Tensor:
        """Compute the (N, F) logits of a CAM and its attention."""
        return attended_score(cam.float(), attention, self.parts)
