"""The classification head whose weights read class activation maps off the last feature map."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from tag2mask.functional.pooling import size_penalty, softmax_masks, weighted_score
from tag2mask.models.gated_pyramid import GatedPyramid, GPPConfig

Pooling = Literal["gap", "gmp", "gpp", "ngwp"]
"""gap: mean over space; gmp: maximum over space, channel by channel, before the classifier; gpp:
the map weighed by a gated pyramid of its own means; ngwp: the mean under softmax masks."""


class ClassActivationHead(nn.Module):
    """1 x 1 convolution without bias: pooled features give logits, unpooled features give maps.

    What counts as the map is the convolution's output, whatever the pooling: gpp only steers how it
    is trained. With ngwp it is the softmax masks, as those are what is pooled under.

    Args:
        channels: Width D of the features.
        num_foreground: F.
        pooling: How the map becomes logits.
        gpp: Switches of that pooling; None: the paper's.
        width: Channels of a layer with ReLU before the classifier; 0: none.

    Source:
        RML, Eq. 1; Specification 2.1: with `gmp` the logit is w . max_x f(x), not the
        maximum of the map. AEFT: the layer of 256 channels before the classifier, both started by
        Xavier's rule, and maps without attention at inference (4.1). 1Stage: 4.4; AEFT supplement,
        section 1.5, compares with its maps.
    """

    def __init__(
        self,
        channels: int,
        num_foreground: int,
        pooling: Pooling = "gap",
        gpp: GPPConfig | None = None,
        width: int = 0,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.embed: nn.Module = nn.Identity()
        if width:
            layer = nn.Conv2d(channels, width, kernel_size=1, bias=False)
            nn.init.xavier_uniform_(layer.weight)
            self.embed = nn.Sequential(layer, nn.ReLU(inplace=True))
        self.classifier = nn.Conv2d(width or channels, num_foreground, kernel_size=1, bias=False)
        self.pyramid: GatedPyramid | None = None
        if pooling == "gpp":
            nn.init.xavier_uniform_(self.classifier.weight)
            self.pyramid = GatedPyramid(num_foreground, gpp or GPPConfig())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Classify (N, D, h, w) features.

        Returns:
            Logits (N, F), and the raw signed class activation map (N, F, h, w); with ngwp masks in
            [0, 1].
        """
        embedded = self.embed(features)
        raw: Tensor = self.classifier(embedded)
        if self.pooling == "gap":  # the mean of the map is the classifier of the mean
            return raw.mean(dim=(2, 3)), raw
        if self.pyramid is not None:
            return self.pyramid.score(raw, self.pyramid(raw)), raw
        if self.pooling == "ngwp":
            masks = softmax_masks(raw.float())[:, 1:]
            return weighted_score(raw.float(), masks) + size_penalty(masks), masks
        peak = embedded.amax(dim=(2, 3), keepdim=True)
        return self.classifier(peak).flatten(1), raw

    def raw(self, features: Tensor) -> Tensor:
        """(N, F, h, w) signed output of the classifier for (N, D, h, w) features, unpooled."""
        raw: Tensor = self.classifier(self.embed(features))
        return raw

    def cam(self, features: Tensor) -> Tensor:
        """The map of `forward` alone: no logits are computed."""
        raw = self.raw(features)
        return softmax_masks(raw.float())[:, 1:] if self.pooling == "ngwp" else raw
