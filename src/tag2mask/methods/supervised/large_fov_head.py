"""The LargeFOV decoder of DeepLab: two dilated 3 x 3 convolutions of the last map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class LargeFOVHead(nn.Module):
    """Reduce the last map by a dilated 3 x 3 convolution with ReLU and classify it by another.

    Args:
        channels: Channels of the last map.
        num_classes: C, including background.
        width: Channels between the two convolutions.
        dilation: Dilation of both; the default is for maps of stride 8.

    Source:
        DeepLab v1 (arXiv 1412.7062), section 5.2, as AEFT builds it: Specification 4.1. Weights
        start from Xavier's rule.
    """

    def __init__(
        self, channels: int, num_classes: int, width: int = 512, dilation: int = 12
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation)
        self.classifier = nn.Conv2d(width, num_classes, 3, padding=dilation, dilation=dilation)
        for layer in (self.reduce, self.classifier):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn the last, (N, D, h, w), of the maps f1..f4 into logits (N, C, h, w)."""
        logits: Tensor = self.classifier(F.relu(self.reduce(maps[-1])))
        return logits
