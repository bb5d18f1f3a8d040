"""1Stage's decoder: deep and shallow features, mixed by a stochastic gate.

Source:
    1Stage (arXiv 2005.08104), section 3.3; Specification 4.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.methods.onestage.aspp import ASPP, conv_norm_relu
from tag2mask.models.batch_norm import SharedBatchNorm

SKIP_WIDTH = 48
"""Channels of the shallow map that are concatenated with the deep map."""


class GlobalCueInjection(nn.Module):
    """Normalize shallow features; scale and shift them by the spatial maxima of deep features.

    Args:
        channels: Channels of the shallow map.
        width: Channels of the deep map and of the output.

    Source:
        1Stage, section 3.3: adaptive normalization with scale (around 1) and shift from the spatial
        maxima of a layer on the deep features. Details follow the released configuration.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.cue = conv_norm_relu(width, 2 * width, 1)
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), SharedBatchNorm(width, affine=False)
        )
        self.mix = conv_norm_relu(width, width, 1)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Turn (N, D, H, W) shallow and (N, width, h, w) deep features into (N, width, H, W)."""
        scale, shift = self.cue(deep).amax(dim=(2, 3))[:, :, None, None].chunk(2, dim=1)
        injected: Tensor = self.mix(F.relu(self.reduce(shallow) * (1 + scale) + shift))
        return injected


class StochasticGate(nn.Module):
    """Take each value from the shallow path with probability psi, else from the deep path.

    At inference, and if not `stochastic`, return psi * shallow + (1 - psi) * deep.

    Source:
        1Stage, Eq. 9 and 10. Departs from the official code, which shifts the deep values in
        training to keep the mean of the deep path.
    """

    def __init__(self, psi: float, *, stochastic: bool = True) -> None:
        super().__init__()
        self.psi = psi
        self.stochastic = stochastic

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Mix two (N, D, H, W) maps."""
        if self.training and self.stochastic:
            take_shallow = torch.rand(deep.shape, device=deep.device) < self.psi
            return torch.where(take_shallow, shallow, deep)
        return torch.lerp(deep, shallow.to(deep.dtype), self.psi)


class GatedDecoder(nn.Module):
    """ASPP, global cue injection, stochastic gate and the decoder of DeepLab v3+.

    Some channels of the shallow map are also concatenated with the deep path before the gate.

    Args:
        shallow: Channels of the shallow map.
        deep: Channels of the last map.
        num_foreground: F.
        width: Channels of all layers.
        dilations: Dilations of ASPP.
        psi: Probability of the shallow path.
        stochastic: Draw the path of each value in training. If False, average as at inference.
    """

    def __init__(
        self,
        shallow: int,
        deep: int,
        num_foreground: int,
        *,
        width: int = 256,
        dilations: Sequence[int] = (6, 12, 18),
        psi: float = 0.3,
        stochastic: bool = True,
    ) -> None:
        super().__init__()
        self.aspp = ASPP(deep, width, dilations)
        self.skip = conv_norm_relu(shallow, SKIP_WIDTH, 1)
        self.join = conv_norm_relu(width + SKIP_WIDTH, width, 3)
        self.inject = GlobalCueInjection(shallow, width)
        self.gate = StochasticGate(psi, stochastic=stochastic)
        self.decode = nn.Sequential(
            conv_norm_relu(width, width, 3),
            nn.Dropout(0.5),
            conv_norm_relu(width, width, 3),
            nn.Dropout(0.1),
        )
        self.classifier = nn.Conv2d(width, num_foreground, 1)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Turn (N, D_s, H, W) and (N, D_d, h, w) into class scores (N, F, H, W)."""
        context = upsample(self.aspp(deep), shallow.shape[-2:])
        joined = self.join(torch.cat([context, self.skip(shallow)], dim=1))
        mixed = self.gate(self.inject(shallow, joined), joined)
        score: Tensor = self.classifier(self.decode(mixed))
        return score
