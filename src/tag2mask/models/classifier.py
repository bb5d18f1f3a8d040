"""The classification head, whose weights also give class activation maps (CAMs)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from tag2mask.functional.pooling import size_penalty, softmax_masks, weighted_score
from tag2mask.models.gated_pyramid import GatedPyramid, GPPConfig

Pooling = Literal["gap", "gmp", "gpp", "ngwp"]
"""gap: global average pooling; gmp: global max pooling of the features before the classifier; gpp:
gated pyramid pooling (AEFT); ngwp: normalized global weighted pooling (1Stage)."""


class ClassActivationHead(nn.Module):
    """Classify features with a 1 x 1 convolution without bias; its output is the CAM.

    The CAM is the output of the convolution for every pooling except ngwp, whose CAM is the softmax
    masks. In particular, gpp only affects training.

    Args:
        channels: Width D of the features.
        num_foreground: F.
        pooling: Pooling of the CAM to logits.
        gpp: Settings of gated pyramid pooling. None: those of the paper.
        width: Channels of a convolution with ReLU before the classifier. 0: no such layer.
        xavier: Start the classifier from Xavier's rule instead of torch's default. With `width`,
            both layers always do.
        dropout: Probability of dropping a feature channel in training.

    Source:
        RML, Eq. 1; Specification 2.1: with `gmp` the logit is w . max_x f(x), not the maximum of
        the CAM. AEFT: a layer of 256 channels before the classifier, both with Xavier
        initialization for every pooling, and CAMs without attention at inference (Specification
        4.1). 1Stage: Specification 4.4; AEFT's supplement, section 1.5, compares with its maps. PSA
        and SEAM: dropout of 0.5 before the classifier and Xavier's rule (Specification 4.2 and
        4.3).

    Example:
        >>> import torch
        >>> head = ClassActivationHead(channels=64, num_foreground=20, pooling="gap")
        >>> logits, cam = head(torch.rand(2, 64, 14, 14))
        >>> logits.shape, cam.shape
        (torch.Size([2, 20]), torch.Size([2, 20, 14, 14]))
    """

    def __init__(
        self,
        channels: int,
        num_foreground: int,
        pooling: Pooling = "gap",
        gpp: GPPConfig | None = None,
        width: int = 0,
        *,
        xavier: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.dropout = nn.Dropout2d(dropout)
        self.embed: nn.Module = nn.Identity()
        if width:
            layer = nn.Conv2d(channels, width, kernel_size=1, bias=False)
            nn.init.xavier_uniform_(layer.weight)
            self.embed = nn.Sequential(layer, nn.ReLU(inplace=True))
        self.classifier = nn.Conv2d(width or channels, num_foreground, kernel_size=1, bias=False)
        if width or xavier:
            nn.init.xavier_uniform_(self.classifier.weight)
        self.pyramid: GatedPyramid | None = None
        if pooling == "gpp":
            self.pyramid = GatedPyramid(num_foreground, gpp or GPPConfig())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Classify (N, D, h, w) features.

        Returns:
            Logits (N, F) and the raw signed CAM (N, F, h, w); with ngwp, masks in [0, 1].
        """
        embedded = self.embed(self.dropout(features))
        raw: Tensor = self.classifier(embedded)
        if self.pooling == "gap":  # the mean of the CAM equals the classifier of the mean
            return raw.mean(dim=(2, 3)), raw
        if self.pyramid is not None:
            return self.pyramid.score(raw, self.pyramid(raw)), raw
        if self.pooling == "ngwp":
            masks = softmax_masks(raw.float())[:, 1:]
            return weighted_score(raw.float(), masks) + size_penalty(masks), masks
        peak = embedded.amax(dim=(2, 3), keepdim=True)
        return self.classifier(peak).flatten(1), raw

    def raw(self, features: Tensor) -> Tensor:
        """Compute the signed output (N, F, h, w) of the classifier for (N, D, h, w) features."""
        raw: Tensor = self.classifier(self.embed(self.dropout(features)))
        return raw

    def cam(self, features: Tensor) -> Tensor:
        """Compute the CAM of `forward` without the logits."""
        raw = self.raw(features)
        return softmax_masks(raw.float())[:, 1:] if self.pooling == "ngwp" else raw
