"""Gated pyramid pooling (GPP): an attention map computed from the CAM itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from tag2mask.config.schema import Config
from tag2mask.functional.pooling import LEVELS, Parts, attended_score, gated_pyramid


class GPPConfig(Config):
    """Settings of gated pyramid pooling; the defaults are those of the paper."""

    levels: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=LEVELS, min_length=2)
    """Regions per side of each level of the pyramid, coarse to fine. The paper's belong to maps of
    40 x 40; the finest level must be much coarser than the map: [1, 2, 4, 8] for 16 x 16."""
    parts: Parts = "both"
    """Activations that are pooled: both signs or only one (AEFT supplement, section 1.2)."""
    gate_negative: bool = True
    """Gate negative activations too; false is beta = 1 of the supplement, section 1.2."""

    @field_validator("levels")
    @classmethod
    def _check_levels(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        """Require each level to be finer than the one before it."""
        if any(fine <= coarse for coarse, fine in pairwise(levels)):
            raise ValueError("must ascend, coarse to fine, as in [2, 4, 8, 16]")
        return levels


class GatedPyramid(nn.Module):
    """Gated pyramid pooling.

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
        self.levels = config.levels
        groups = 2 if config.gate_negative else 1
        self.gates = nn.ModuleList(
            nn.Conv2d(
                2 * groups * num_foreground, 2 * groups, 3, padding=1, bias=False, groups=groups
            )
            for _ in config.levels[1:]
        )

    def forward(self, cam: Tensor) -> Tensor:
        """Compute the signed attention map of a signed (N, F, h, w) CAM."""
        weights = [cast(Tensor, gate.weight).float() for gate in self.gates]
        with torch.autocast(cam.device.type, enabled=False):  # products of small numbers
            return gated_pyramid(cam.float(), weights, self.levels)

    def score(self, cam: Tensor, attention: Tensor) -> Tensor:
        """Compute the (N, F) logits of a CAM and its attention."""
        return attended_score(cam.float(), attention, self.parts)
