"""From one image to what a network sees in it: views, evidence or decoder scores, classes.

Source:
    Specification 2.2 (multi-scale evidence), 2.11 (the decoder's protocol), R18 (that of
    methods without decoder), 4.4 (that of 1Stage).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.functional.cam import fused_cam, scaled_size, scaled_view, upsample
from tag2mask.methods.base import CamOutput, Method, Propagation, ScaledViews
from tag2mask.types import ClassSource

PROTOCOLS: dict[str, dict[str, Any]] = {
    "rml": {"scales": (1.0, 0.5, 1.5), "long_side_px": 0, "refine": True},
    "afa": {"scales": (1.0, 0.5, 0.75), "long_side_px": 512, "refine": False},
    "onestage": {"scales": (1.0, 0.5, 1.5, 2.0), "long_side_px": 0, "refine": False},
}
"""What each protocol says where the recipe leaves it open."""
BACKGROUND_POWER = 3
"""Exponent of the share of background by `onestage` (4.4); larger gives larger objects."""
SMALLEST_SIDE_PX = 32
"""Smallest side a backbone takes; smaller views are enlarged for it."""


class NetworkOutput(NamedTuple):
    """What a network says about one image, before any class or threshold is chosen."""

    cam: Tensor
    """(1, F, h, w) evidence in [0, 1) of every class, present or not, at the working size."""
    probs: Tensor
    """(1, F) class probabilities."""
    affinity: Tensor | None = None
    """(1, L, L) in [0, 1] over the grid of the last feature map, or None where not asked for."""
    logits: Tensor | None = None
    """(1, C, h', w') scores of background and all classes: of a decoder at its grid, or of shared
    pixels; None by protocol `rml`."""
    propagation: Propagation | None = None
    """What spreads evidence in place of an affinity, or None."""


def resolve_inference_config(predict: PredictConfig, method: Method) -> PredictConfig:
    """Fill in what the recipe leaves to the protocol, and the protocol itself.

    Raises:
        RecipeError: If the protocol wants a decoder and the method has none, or settings disagree.
    """
    protocol = predict.protocol
    if protocol == "auto":
        protocol = _own_protocol(method)
    if protocol == "onestage" and not method.shares_pixels:
        raise RecipeError(
            "predict.protocol: onestage takes evidence by which classes and background share each "
            "pixel, and this method has none; use rml"
        )
    if protocol == "afa" and not method.has_decoder:
        raise RecipeError(
            "predict.protocol: afa cuts masks from a decoder, and this method has none; use rml"
        )
    if predict.confident and (protocol != "rml" or predict.propagate):
        raise RecipeError(
            "predict.confident: cuts the classifier's own evidence; set predict.protocol to rml "
            "and leave predict.propagate off"
        )
    own = {key: v for key, v in PROTOCOLS[protocol].items() if getattr(predict, key) is None}
    return predict.model_copy(update={**own, "protocol": protocol})


@torch.no_grad()
def predict_multi_scale(
    method: Method,
    rgb: Tensor,
    predict: PredictConfig,
    tags: Tensor | None = None,
    name: str = "",
) -> NetworkOutput:
    """Look at one image at every scale; one pass per scale, both mirror images stacked.

    By the protocol `afa` the decoder is asked at every scale, and the evidence is of scale 1 alone.
    By `onestage` the mean of the evidence is all there is to decide.

    Args:
        method: In evaluation mode, on the device of `image`.
        rgb: (1, 3, H, W) uint8 RGB.
        predict: Protocol, scales, mirror images, working size.
        tags: (1, F) in {0, 1} for methods that read them while labeling.
        name: Of the image, for methods that draw numbers while labeling.

    Source:
        Specification 2.2, R18 (1), (2): scale 1's logits are averaged over mirror images;
        2.11 for decoders.
    """
    predict = resolve_inference_config(predict, method)
    image = _working_image(method, rgb, predict)
    scales: Sequence[float] = predict.scales or ()
    decodes = predict.protocol == "afa"
    seen_at = (1.0,) if decodes else scales
    views = [_view(image, scale, predict) for scale in seen_at]
    output = method.compute_multi_scale_cam(ScaledViews(views, seen_at, tags, name))
    cam = fused_cam((_mirrored_apart(one, predict) for one in output), image.shape[-2:])
    if predict.protocol == "onestage":
        shares = (_mirrored_apart(one, predict) for one in output)
        return NetworkOutput(
            cam, _largest_probability(output), logits=shared_logits(shares, image.shape[-2:])
        )
    if 1.0 in seen_at:
        probs = _probability(output[seen_at.index(1.0)].logits)
    else:
        probs = class_probs(method, rgb, predict)
    if decodes:
        return NetworkOutput(
            cam, probs, logits=multi_scale_logits(method, image, scales, flip=predict.flip)
        )
    if not predict.propagate:
        return NetworkOutput(cam, probs)
    view = _at_least(image, SMALLEST_SIDE_PX)
    propagation = method.propagation(view)
    if propagation is not None:
        return NetworkOutput(cam, probs, propagation=propagation)
    return NetworkOutput(cam, probs, method.maps(view).get("affinity"))


def shared_logits(
    views: Iterable[tuple[Tensor, Tensor | None]], size: tuple[int, ...] | torch.Size
) -> Tensor:
    """Average shares of pixels over scales and mirror images, and make background less likely.

    Args:
        views: Per scale the shares (1, F, h, w) of the classes in the image, and those in its
            mirror image or None; in [0, 1], what is left is background.
        size: (H, W) of the result.

    Returns:
        (1, 1 + F, H, W) logarithms of the mean shares, background first and cubed.

    Source:
        Specification 4.4.
    """
    shares = []
    for upright, mirrored in views:
        shares.append(upsample(upright, size))
        if mirrored is not None:
            shares.append(upsample(mirrored.flip(-1), size))
    mean = torch.stack(shares).mean(dim=0)
    background = (1 - mean.sum(dim=1, keepdim=True)).clamp_min(0) ** BACKGROUND_POWER
    probs = torch.cat([background, mean], dim=1)
    return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


def multi_scale_logits(
    method: Method, image: Tensor, scales: Sequence[float], *, flip: bool
) -> Tensor:
    """Take the largest decoder score over scales, each the mean of both mirror images.

    Args:
        method: Has a decoder.
        image: (1, 3, H, W) normalized.
        scales: Factors of the image's size.
        flip: Also look at the mirrored image.

    Returns:
        (1, C, h, w) logits at the grid of scale 1, or of the first scale where 1 is none of them.

    Source:
        Specification 2.11.
    """
    best: Tensor | None = None
    for scale in sorted(scales, key=lambda scale: scale != 1.0):
        view = upsample(image, scaled_size(image.shape[-2:], scale))
        view = torch.cat([view, view.flip(-1)]) if flip else view
        logits = method.segmentation(_at_least(view, SMALLEST_SIDE_PX))
        assert logits is not None, "the protocol was settled for a method with a decoder"
        logits = logits.float()
        if best is not None:
            logits = upsample(logits, best.shape[-2:])
        if flip:
            upright, mirrored = logits.chunk(2)
            logits = (upright + mirrored.flip(-1)) / 2
        best = logits if best is None else torch.maximum(best, logits)
    if best is None:
        raise ValueError("multi_scale_logit needs at least one scale")
    return best


@torch.no_grad()
def class_probs(method: Method, rgb: Tensor, predict: PredictConfig) -> Tensor:
    """(1, F) class probabilities of one (1, 3, H, W) uint8 image, from scale 1 alone."""
    image = _working_image(method, rgb, resolve_inference_config(predict, method))
    return _probability(method.class_logits(_view(image, 1.0, predict)))


def select_classes(
    probs: Tensor, tags: Tensor | None, predict: PredictConfig, class_source: ClassSource
) -> tuple[int, ...]:
    """Choose the classes a mask may hold.

    Args:
        probs: (1, F) class probabilities, read under the class source `classifier`.
        tags: (1, F) in {0, 1}, read under the class source `tags`.
        predict: Threshold, and whether the likeliest class is kept when none passes it.
        class_source: Who chooses. By the protocol `afa`, `predicted` leaves the choice to the decoder.

    Returns:
        Indices into the foreground classes, rising; empty for an image of background only.

    Raises:
        ValueError: If the gate is `oracle` and there are no tags.
    """
    if class_source == "tags":
        if tags is None:
            raise ValueError("class source 'tags' needs tags")
        return tuple(tags[0].nonzero()[:, 0].tolist())
    if predict.protocol == "afa":
        return tuple(range(probs.shape[1]))
    chosen = (probs[0] > predict.class_threshold).nonzero()[:, 0].tolist()
    if not chosen and predict.fallback:
        chosen = [int(probs[0].argmax())]
    return tuple(chosen)


def resize_to_working_size(image: Tensor, predict: PredictConfig) -> Tensor:
    """Resize an (N, 3, H, W) uint8 image to `long_side_px`, and to no more than `max_side_px`."""
    size = limited_size(image.shape[-2:], predict.long_side_px or None, predict.max_side_px)
    if size == tuple(image.shape[-2:]):
        return image
    resized = F.interpolate(
        image.float(), size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized.round().clamp(0, 255).to(torch.uint8)


def limited_size(
    size: Sequence[int],
    long_side: int | None,
    most: int | None,
    round_to: Callable[[float], int] = round,
) -> tuple[int, int]:
    """(H, W) scaled so that the long side is `long_side`, or `most` if that is less.

    Args:
        size: (H, W) of the image.
        long_side: In pixels; None keeps the image's own.
        most: In pixels; None sets no limit.
        round_to: Makes a whole number of the other side.
    """
    height, width = size
    longest = max(height, width)
    side = long_side or longest
    side = min(side, most or side)
    scaled = [max(1, round_to(part * side / longest)) for part in (height, width)]
    return scaled[0], scaled[1]


def _working_image(method: Method, image: Tensor, predict: PredictConfig) -> Tensor:
    """Normalized image at the size that the settled protocol looks at.

    Source:
        Specification 2.11: by `afa` the other side is rounded down, and pixels are neither
        filtered nor rounded.
    """
    if predict.protocol != "afa":
        return method.backbone.normalize(resize_to_working_size(image, predict))
    size = limited_size(image.shape[-2:], predict.long_side_px or None, predict.max_side_px, int)
    return method.backbone.normalize(upsample(image.float(), size))


def _probability(logits: Tensor) -> Tensor:
    """(1, F) probabilities from (V, F) logits of the V views of one image."""
    return logits.float().mean(dim=0, keepdim=True).sigmoid()


def _largest_probability(output: Sequence[CamOutput]) -> Tensor:
    """(1, F) largest probability of each class over all views of one image."""
    return torch.cat([one.logits.float() for one in output]).amax(dim=0, keepdim=True).sigmoid()


def _own_protocol(method: Method) -> Literal["rml", "afa", "onestage"]:
    if method.shares_pixels:
        return "onestage"
    return "afa" if method.has_decoder else "rml"


def _view(image: Tensor, scale: float, predict: PredictConfig) -> Tensor:
    """A (1, 3, H, W) image at one scale, its mirror image stacked below if asked for."""
    view = _at_least(scaled_view(image, scale), SMALLEST_SIDE_PX)
    return torch.cat([view, view.flip(-1)]) if predict.flip else view


def _mirrored_apart(output: CamOutput, predict: PredictConfig) -> tuple[Tensor, Tensor | None]:
    """Evidence of an image and of its mirror image, or None, from what `_view` stacked."""
    cam = output.cam.float()
    return (cam[:1], cam[1:]) if predict.flip else (cam, None)


def _at_least(view: Tensor, side: int) -> Tensor:
    """Enlarge (N, 3, h, w) views whose shorter side is under `side`."""
    height, width = view.shape[-2:]
    return upsample(view, (max(height, side), max(width, side)))
