"""The classification head whose weights read class activation maps off the last feature map."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Pooling = Literal["gap", "gmp"]
"""gap: mean over space; gmp: maximum over space, channel by channel, before the classifier."""


class ClassActivationHead(nn.Module):
    """1 x 1 convolution without bias: pooled features give logits, unpooled features give maps.

    Source:
        RML, Eq. 1; methods specification 2.1: with `gmp` the logit is w . max_x f(x), not the
        maximum of the map.
    """

    def __init__(self, channels: int, num_foreground: int, pooling: Pooling = "gap") -> None:
        super().__init__()
        self.pooling = pooling
        self.classifier = nn.Conv2d(channels, num_foreground, kernel_size=1, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Classify (N, D, h, w) features.

        Returns:
            Logits (N, F), and the raw signed class activation map (N, F, h, w).
        """
        cam: Tensor = self.classifier(features)
        if self.pooling == "gap":  # the mean of the map is the classifier of the mean
            return cam.mean(dim=(2, 3)), cam
        peak = features.amax(dim=(2, 3), keepdim=True)
        return self.classifier(peak).flatten(1), cam
