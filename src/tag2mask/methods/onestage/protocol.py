"""The inference protocol of 1Stage: classes and background share each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.functional.cam import cam_range, normalize_cam, summed_cam, upsample
from tag2mask.methods.protocol import (
    InferenceProtocol,
    NetworkOutput,
    scaled_views,
    split_flip,
)

if TYPE_CHECKING:  # `base` imports the module of protocols
    from tag2mask.methods.base import CamOutput, Method

BACKGROUND_POWER = 3
"""Exponent of the background's share; larger gives larger objects (Specification 4.4)."""


@dataclass(frozen=True, slots=True)
class PixelShares(InferenceProtocol):
    """Masks from the mean share of each class in each pixel, over scales and flips.

    A class is as probable as in its most probable view.

    Source:
        1Stage (arXiv 2005.08104) with Specification 4.4.
    """

    name: ClassVar[str] = "pixel_shares"
    takes_batches: ClassVar[bool] = True
    final_crf: ClassVar[Mapping[str, float]] = {
        "bilateral_sxy": 80,
        "bilateral_srgb": 13,
        "bilateral_weight": 10,
    }
    """That of PSA (Specification 5.1)."""

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    refine: bool = False

    def check(self, method: Method, config: PredictConfig) -> None:
        """Reject a method whose CAM does not consist of pixel shares."""
        if not isinstance(method.protocol, PixelShares):
            raise RecipeError(
                "predict.protocol: onestage needs a CAM in which classes and background share each "
                "pixel, and this method has none; use cam"
            )
        InferenceProtocol.check(self, method, config)

    def predict(
        self, method: Method, image: Tensor, config: PredictConfig, tags: Tensor | None, name: str
    ) -> NetworkOutput:
        """Average the shares over scales and flips."""
        size, flip = image.shape[-2:], config.flip
        outputs = method.compute_multi_scale_cam(
            scaled_views(image, config.scales or (), tags, name, flip=flip)
        )
        summed = summed_cam((split_flip(one, flip=flip) for one in outputs), size)
        logits = shared_logits((split_flip(one, flip=flip) for one in outputs), size)
        return NetworkOutput(
            normalize_cam(summed),
            largest_probs(outputs, len(image)),
            logits=logits,
            views=[one.cam for one in outputs],
            cam_range=cam_range(summed),
        )


def shared_logits(
    views: Iterable[tuple[Tensor, Tensor | None]], size: tuple[int, ...] | torch.Size
) -> Tensor:
    """Average pixel shares over scales and flips, and make background less probable.

    Args:
        views: Per scale the (N, F, h, w) shares of the classes in the images, and those in their
            flipped copies or None; in [0, 1], the rest is background.
        size: (H, W) of the result.

    Returns:
        (N, 1 + F, H, W) logarithms of the mean shares, background first and cubed.

    Source:
        Specification 4.4.
    """
    shares = []
    for upright, flipped in views:
        shares.append(upsample(upright, size))
        if flipped is not None:
            shares.append(upsample(flipped.flip(-1), size))
    mean = torch.stack(shares).mean(dim=0)
    background = (1 - mean.sum(dim=1, keepdim=True)).clamp_min(0) ** BACKGROUND_POWER
    probs = torch.cat([background, mean], dim=1)
    return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


def largest_probs(outputs: Sequence[CamOutput], count: int) -> Tensor:
    """(N, F) largest probability of each class over all views of each of N images."""
    logits = torch.cat([one.logits.float() for one in outputs])
    return logits.reshape(-1, count, logits.shape[1]).amax(dim=0).sigmoid()
