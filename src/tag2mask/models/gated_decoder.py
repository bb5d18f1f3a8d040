"""1Stage's decoder: deep features, and shallow ones told about the whole, mixed at random.

Source:
    1Stage (arXiv 2005.08104), section 3.3; methods specification 4.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.functional.cam import upsample
from tag2mask.models.aspp import ASPP, conv_norm_relu


class GlobalCueInjection(nn.Module):
    """Shallow features, standardised per photo, then scaled and shifted by the deep ones' mean.

    Args:
        channels: Width of the shallow map.
        width: Of the deep map and of the result.

    Source:
        1Stage, section 3.3: adaptive instance normalisation, a linear layer of the pooled deep
        features gives scale and shift; ReLU. Departs: the scale starts about 1.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.style = nn.Linear(width, 2 * width)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """(N, D, H, W) shallow and (N, width, h, w) deep features to (N, width, H, W)."""
        scale, shift = self.style(deep.mean(dim=(2, 3)))[:, :, None, None].chunk(2, dim=1)
        return F.relu(F.instance_norm(self.reduce(shallow)) * (1 + scale) + shift)


class StochasticGate(nn.Module):
    """Take each value from the shallow path with probability psi, from the deep path otherwise.

    At inference, and where it is not stochastic, both are mixed in these shares.

    Source:
        1Stage, Eq. 9 and 10. Departs from the official code, which shifts the deep values while
        training so that their mean stays that of the deep path alone.
    """

    def __init__(self, psi: float, *, stochastic: bool = True) -> None:
        super().__init__()
        self.psi = psi
        self.stochastic = stochastic

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Two (N, D, H, W) maps to one."""
        if self.training and self.stochastic:
            drawn = torch.rand(deep.shape, device=deep.device) < self.psi
            return torch.where(drawn, shallow, deep)
        return torch.lerp(deep, shallow.to(deep.dtype), self.psi)


class GatedDecoder(nn.Module):
    """ASPP, global cue injection, stochastic gate, and a small decoder to class scores.

    Args:
        shallow: Channels of the shallow map.
        deep: Channels of the last map.
        num_foreground: F.
        width: Channels of all layers.
        dilations: Of ASPP, in cells of the last map.
        psi: Share of the shallow path.
        stochastic: Draw that share while training; off: mix it, as at inference.
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
        self.inject = GlobalCueInjection(shallow, width)
        self.gate = StochasticGate(psi, stochastic=stochastic)
        self.decode = conv_norm_relu(width, width, 3)
        self.classifier = nn.Conv2d(width, num_foreground, 1)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """(N, D_s, H, W) and (N, D_d, h, w) to scores (N, F, H, W) of the classes."""
        context = self.aspp(deep)
        injected = self.inject(shallow, context)
        mixed = self.gate(injected, upsample(context, injected.shape[-2:]))
        score: Tensor = self.classifier(self.decode(mixed))
        return score
