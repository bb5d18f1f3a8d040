"""Inference protocols: how a method turns one image into class scores.

A method brings its protocol as an object (`Method.protocol`), and a recipe can name the protocol of
another method (`predict.protocol`). Here are the two that several methods share; a method with a
protocol of its own defines it in its home.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.functional.bands import is_large, sample, shrink
from tag2mask.functional.cam import (
    cam_range,
    normalize_cam,
    scaled_size,
    scaled_view,
    summed_cam,
    upsample,
)
from tag2mask.functional.sizes import at_least, is_exporting, limited_size

if TYPE_CHECKING:  # `base` imports this module
    from tag2mask.methods.base import CamOutput, Method

MIN_SIDE_PX = 32
"""Smallest side that a backbone takes; smaller views are enlarged."""

Propagation = Callable[[Tensor], Tensor]
"""Propagates the (1, K, h, w) CAM in [0, 1] of K selected classes over one image. Returns a CAM of
shape (1, K, h', w') in [0, 1], or (1, 1 + K, h', w') non-negative scores with background first."""


class NetworkOutput(NamedTuple):
    """What a network computes for an image before any class or threshold is chosen.

    A protocol that takes batches returns N images in one output; `of_image` returns one of them.
    """

    cam: Tensor
    """(1, F, h, w) CAM in [0, 1) of every class, present or not, at the working size."""
    probs: Tensor
    """(1, F) class probabilities."""
    affinity: Tensor | None = None
    """(1, L, L) in [0, 1] over the grid of the last feature map; None if nothing propagates."""
    radius: int = 0
    """Half side of the window in which the affinity propagates, in positions."""
    logits: Tensor | None = None
    """(1, C, h', w') scores of background and all classes; None if masks come from the CAM."""
    propagation: Propagation | None = None
    """Propagates the CAM in place of an affinity; None if the method has no own walk."""
    views: Sequence[Tensor] = ()
    """Maps of each scale, (V, F, h, w) in [0, 1] at the network's grid, with those of the flipped
    copy behind; their agreement says how certain a mask is. Empty if a protocol keeps none."""
    cam_range: Tensor | None = None
    """(1, F, 2) minimum of the CAM before it was normalized, and its distance to the maximum; tiles
    of one image share a range by it. None if the values compare across images."""

    def of_image(self, index: int) -> NetworkOutput:
        """Return the output of one of the images of a batch; nothing propagates in a batch."""
        row = slice(index, index + 1)
        return self._replace(
            cam=self.cam[row],
            probs=self.probs[row],
            logits=None if self.logits is None else self.logits[row],
            views=[view[index :: len(self.cam)] for view in self.views],
            cam_range=None if self.cam_range is None else self.cam_range[row],
        )


class ScaledViews(NamedTuple):
    """An image at every inference scale, with its flipped copy stacked behind.

    N images of one size may share it, first all of them, then all flipped copies. A method with
    a `compute_multi_scale_cam` of its own gets one image.
    """

    images: Sequence[Tensor]
    """Per scale (V * N, 3, h, w) normalized; V is 2 with flip, else 1."""
    scales: Sequence[float]
    """Factors of the working size."""
    tags: Tensor | None = None
    """(N, F) in {0, 1}; None for untagged images."""
    name: str = ""
    """Name of the image; makes random draws independent of the order of images. Empty for several
    images."""

    @property
    def nearest_full(self) -> int:
        """Position of the scale nearest to 1."""
        return min(range(len(self.scales)), key=lambda at: abs(self.scales[at] - 1))


@dataclass(frozen=True, slots=True)
class InferenceProtocol(ABC):
    """Test-time defaults of a method, and how its outputs over scales and flips are combined.

    To write a protocol, subclass this class, implement `predict` and set it as `protocol` of the
    method.
    """

    name: ClassVar[str]
    """What settings and messages call the protocol."""
    selects_by_classifier: ClassVar[bool] = True
    """Whether the class threshold selects the classes of untagged images."""
    takes_batches: ClassVar[bool] = False
    """Whether `predict` takes several images of one size at once."""
    final_crf: ClassVar[Mapping[str, float]] = {}
    """Settings of the final dense CRF (`predict.crf`) other than its defaults."""

    scales: tuple[float, ...] = (1.0, 0.5, 1.5)
    """Default of `predict.scales`."""
    long_side_px: int = 0
    """Default of `predict.long_side_px`."""
    refine: bool = True
    """Default of `predict.refine`."""

    @abstractmethod
    def predict(
        self, method: Method, image: Tensor, config: PredictConfig, tags: Tensor | None, name: str
    ) -> NetworkOutput:
        """Run a network on an image at every scale.

        Args:
            method: In evaluation mode, on the device of `image`.
            image: (1, 3, h, w), from `normalized_image`; (N, 3, h, w) if the protocol takes
                batches.
            config: Complete: `complete_config` has filled in the defaults.
            tags: (1, F) or (N, F) in {0, 1} for methods that read tags while labeling.
            name: Name of the image, for methods that draw random numbers while labeling.
        """

    def check(self, method: Method, config: PredictConfig) -> None:
        """Reject a method or settings that this protocol cannot serve.

        Raises:
            RecipeError: Naming the key to change.
        """
        if config.confident:
            raise RecipeError(
                "predict.confident: needs masks made from the CAM; set predict.protocol to cam"
            )

    def normalized_image(self, method: Method, image: Tensor, config: PredictConfig) -> Tensor:
        """Resize a (1, 3, H, W) uint8 image to the working size and normalize it."""
        return method.backbone.normalize(resize_to_working_size(image, config))

    def working_size(self, size: Sequence[int], config: PredictConfig) -> tuple[int, int]:
        """Return the (h, w) to which `normalized_image` resizes an image of (H, W) `size`."""
        return working_size(size, config)

    def class_probs(self, method: Method, image: Tensor, config: PredictConfig) -> Tensor:
        """(N, F) class probabilities of (N, 3, h, w) normalized images at scale 1."""
        logits = method.class_logits(with_flip(image, 1.0, flip=config.flip))
        return mean_probs(logits, len(image))

    def complete_config(self, config: PredictConfig) -> PredictConfig:
        """Fill in what the recipe leaves to the protocol."""
        defaults = {"scales": self.scales, "long_side_px": self.long_side_px, "refine": self.refine}
        missing = {key: value for key, value in defaults.items() if getattr(config, key) is None}
        return config.model_copy(update=missing)


@dataclass(frozen=True, slots=True)
class MultiScaleCam(InferenceProtocol):
    """Masks from the CAM, added up over scales: the protocol of RML and of every CAM method.

    Source:
        Specification 2.2 and R18 (1), (2): class probabilities are those of scale 1, with the
        logits of both flips averaged.
    """

    name: ClassVar[str] = "cam"
    takes_batches: ClassVar[bool] = True

    def check(self, method: Method, config: PredictConfig) -> None:
        """Reject confident pseudo-labels of a propagated CAM."""
        if config.confident and config.propagate:
            raise RecipeError(
                "predict.confident: thresholds the classifier's own CAM; turn predict.propagate off"
            )

    def predict(
        self, method: Method, image: Tensor, config: PredictConfig, tags: Tensor | None, name: str
    ) -> NetworkOutput:
        """Add up the CAM over scales; add what propagation needs where it is asked for."""
        scales = config.scales or ()
        outputs = method.compute_multi_scale_cam(
            scaled_views(image, scales, tags, name, flip=config.flip)
        )
        summed = summed_cam(
            (split_flip(one, flip=config.flip) for one in outputs), image.shape[-2:]
        )
        cam, limits = normalize_cam(summed), cam_range(summed)
        if 1.0 in scales:
            probs = mean_probs(outputs[scales.index(1.0)].logits, len(image))
        else:
            probs = self.class_probs(method, image, config)
        views = normalized_views(outputs)
        if not config.propagate:
            return NetworkOutput(cam, probs, views=views, cam_range=limits)
        view = enlarge_to(image, MIN_SIDE_PX)
        propagation = method.propagation(view)
        if propagation is not None:
            return NetworkOutput(cam, probs, propagation=propagation, views=views, cam_range=limits)
        affinity = method.attention_maps(view).get("affinity")
        return NetworkOutput(
            cam, probs, affinity, method.propagation_radius, views=views, cam_range=limits
        )


@dataclass(frozen=True, slots=True)
class MultiScaleDecoder(InferenceProtocol):
    """Masks from a decoder: the largest score over scales, each the mean of both flips.

    Source:
        Specification 2.11, the protocol of AFA: the short side is rounded down, pixels are neither
        filtered nor rounded when the image is resized, and the CAM is that of scale 1.
    """

    name: ClassVar[str] = "decoder"
    selects_by_classifier: ClassVar[bool] = False
    takes_batches: ClassVar[bool] = True

    scales: tuple[float, ...] = (1.0, 0.5, 0.75)
    long_side_px: int = 512
    refine: bool = False

    def check(self, method: Method, config: PredictConfig) -> None:
        """Reject a method without a decoder."""
        if not method.has_decoder:
            raise RecipeError(
                "predict.protocol: makes masks from a decoder, and this method has none; use cam"
            )
        InferenceProtocol.check(self, method, config)

    def normalized_image(self, method: Method, image: Tensor, config: PredictConfig) -> Tensor:
        """Resize as AFA does: round the short side down, without antialiasing or rounding."""
        size = self.working_size(image.shape[-2:], config)
        return method.backbone.normalize(nearest_pixels(image, size))

    def working_size(self, size: Sequence[int], config: PredictConfig) -> tuple[int, int]:
        """Round the short side down."""
        return working_size(size, config, round_down=True)

    def predict(
        self, method: Method, image: Tensor, config: PredictConfig, tags: Tensor | None, name: str
    ) -> NetworkOutput:
        """Run the decoder at every scale and the classifier at scale 1."""
        (output,) = method.compute_multi_scale_cam(
            scaled_views(image, (1.0,), tags, name, flip=config.flip)
        )
        summed = summed_cam([split_flip(output, flip=config.flip)], image.shape[-2:])
        cam, limits = normalize_cam(summed), cam_range(summed)
        by_scale = scale_logits(method, image, config.scales or (), flip=config.flip)
        logits = largest_logits(by_scale, flip=config.flip)
        views = [one.softmax(dim=1)[:, 1:] for one in by_scale]
        probs = mean_probs(output.logits, len(image))
        return NetworkOutput(cam, probs, logits=logits, views=views, cam_range=limits)


def multi_scale_logits(
    method: Method, image: Tensor, scales: Sequence[float], *, flip: bool
) -> Tensor:
    """Take the largest decoder score over scales, each the mean of both flips.

    Args:
        method: Has a decoder.
        image: (N, 3, H, W) normalized.
        scales: Factors of the image's size.
        flip: Also run on the flipped image.

    Returns:
        (N, C, h, w) logits at the grid of scale 1, or of the first scale if 1 is not among them.

    Raises:
        ValueError: If there is no scale.

    Source:
        Specification 2.11.
    """
    return largest_logits(scale_logits(method, image, scales, flip=flip), flip=flip)


def scale_logits(
    method: Method, image: Tensor, scales: Sequence[float], *, flip: bool
) -> list[Tensor]:
    """Run a decoder at every scale, scale 1 first; see `multi_scale_logits`.

    Returns:
        Per scale (V * N, C, h, w) logits, with those of the flipped images behind.
    """
    found = []
    for scale in sorted(scales, key=lambda scale: scale != 1.0):
        view = upsample(image, scaled_size(image.shape[-2:], scale))
        view = torch.cat([view, view.flip(-1)]) if flip else view
        logits = method.segmentation(enlarge_to(view, MIN_SIDE_PX))
        assert logits is not None, "`check` has rejected methods without a decoder"
        found.append(logits.float())
    return found


def largest_logits(by_scale: Sequence[Tensor], *, flip: bool) -> Tensor:
    """Combine the (V * N, C, h, w) logits of all scales; see `multi_scale_logits`."""
    largest: Tensor | None = None
    for logits in by_scale:
        resized = logits if largest is None else upsample(logits, largest.shape[-2:])
        if flip:
            upright, flipped = resized.chunk(2)
            resized = (upright + flipped.flip(-1)) / 2
        largest = resized if largest is None else torch.maximum(largest, resized)
    if largest is None:
        raise ValueError("multi_scale_logits needs at least one scale")
    return largest


def normalized_views(outputs: Iterable[CamOutput]) -> list[Tensor]:
    """Normalize the raw CAM of each view of one image by itself; see `NetworkOutput.views`."""
    return [normalize_cam(one.cam.float().relu()) for one in outputs]


def scaled_views(
    image: Tensor, scales: Sequence[float], tags: Tensor | None, name: str, *, flip: bool
) -> ScaledViews:
    """Resize normalized (N, 3, H, W) images to every scale, with flipped copies if asked for."""
    return ScaledViews([with_flip(image, scale, flip=flip) for scale in scales], scales, tags, name)


def with_flip(image: Tensor, scale: float, *, flip: bool) -> Tensor:
    """Return (N, 3, H, W) images at one scale; with `flip` their flipped copies are behind."""
    view = enlarge_to(scaled_view(image, scale), MIN_SIDE_PX)
    return torch.cat([view, view.flip(-1)]) if flip else view


def split_flip(output: CamOutput, *, flip: bool) -> tuple[Tensor, Tensor | None]:
    """Split a CAM that `with_flip` stacked into those of the images and of their flipped copies."""
    cam = output.cam.float()
    if not flip:
        return cam, None
    upright, flipped = cam.chunk(2)
    return upright, flipped


def mean_probs(logits: Tensor, count: int) -> Tensor:
    """Average (V * N, F) logits over the views of each of N images; (N, F) probabilities."""
    return logits.float().reshape(-1, count, logits.shape[1]).mean(dim=0).sigmoid()


def working_size(
    size: Sequence[int], config: PredictConfig, *, round_down: bool = False
) -> tuple[int, int]:
    """Return (h, w) with a long side of `long_side_px`, and of at most `max_side_px`."""
    long_side_px = config.long_side_px or None
    return limited_size(size, long_side_px, config.max_side_px, round_down=round_down)


def resize_to_working_size(image: Tensor, config: PredictConfig) -> Tensor:
    """Resize an (N, 3, H, W) uint8 image to `long_side_px`, and to at most `max_side_px`."""
    size = working_size(image.shape[-2:], config)
    is_limited = config.long_side_px or config.max_side_px
    if not is_limited or (not is_exporting() and size == tuple(image.shape[-2:])):
        return image
    if is_large(image.shape[-2:]):
        resized = shrink(image, size)
    else:
        resized = F.interpolate(
            image.float(), size, mode="bilinear", align_corners=False, antialias=True
        )
    return resized.round().clamp(0, 255).to(torch.uint8)


def nearest_pixels(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, 3, H, W) uint8 images bilinearly without antialiasing; (N, 3, *size) float32."""
    if is_large(image.shape[-2:]):
        return sample(image, size)
    return upsample(image.float(), size)


def enlarge_to(view: Tensor, side_px: int) -> Tensor:
    """Enlarge (N, 3, h, w) views whose shorter side is below `side_px`."""
    height, width = view.shape[-2:]
    return upsample(view, (at_least(height, side_px), at_least(width, side_px)))
