"""AdvCAM: climbs the classifier in the image itself, until it shows the whole object.

Paper: Anti-Adversarially Manipulated Attributions for Weakly and Semi-Supervised Semantic
    Segmentation (Lee, Kim, Yoon, CVPR 2021).

Works while labeling, with the weights of a trained `cam`, whose parameters have the same names; it
has no training of its own, and its loss is that of `cam`.

1. For each present class c the image moves up the gradient of y_c - sum_{k != c} y_k, where y is
   the mean of the positive part of a class map: x <- clip(x + 0.08 g / max|g|).
2. What is most discriminative, {map / max > 0.5}, is held at its first value (weight 7), so that
   other parts of the object grow.
3. The class maps of all 27 rounds are added; at half size there are 13, which count twice.

The map is Grad-CAM on the last features in closed form. The gradient of sum ReLU(map_c) to them is
the classifier's weight wherever the map is positive; summed, over the number of its positive
entries, that is w_c over the number of w_c's positive entries. So Grad-CAM is ReLU(map_c) over that
number, exactly, and costs no backward pass. (With `width` the features are those of that layer.)

Departures: all classes of all images climb together, as one batch, and no gradient of a weight is
computed. The maps are the same, in float64 after all rounds; in float32 a climb magnifies rounding,
whichever way it is computed. Mirror images climb each on its own, there as a pair with one max|g|
and one region. The image is clipped to the range of the untouched one. Classes that do not climb
show their plain map, as strong as if they had stood still. Without tags, the classifier's own
classes climb.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from tag2mask.config.schema import Fraction
from tag2mask.functional.precision import LabelPrecision, label_autocast
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.cam import CAM, PRESENT, CAMConfig
from tag2mask.methods.protocol import ScaledViews

HALF_SCALE = 0.5
"""At this scale and below there are fewer rounds."""
HALF_WEIGHT = 2.0
"""What a round counts there."""


class AdvCAMConfig(CAMConfig):
    """The network is that of `cam`, with the same keys; the climb is the paper's."""

    name: str = "advcam"
    iterations: int = Field(default=27, ge=1)
    """Rounds of the climb; the maps of all are added. 1: the plain map."""
    half_iterations: int = Field(default=13, ge=1)
    """Rounds at scale 0.5 and below; each counts twice."""
    step_size: PositiveFloat = 0.08
    """Largest change of a normalized pixel in one round."""
    hold: float = Field(default=7.0, ge=0)
    """Weight of holding the discriminative region; 0 lets it grow for ever."""
    discriminative: Fraction = 0.5
    """Share of a map's peak from which a pixel belongs to that region."""
    at_once: int = Field(default=16, ge=1)
    """Images that climb in one pass, one per class, image and mirror image; costs memory only."""
    label_precision: LabelPrecision = "auto"
    """Arithmetic of the climb; auto: bf16 where the processor is fast in it."""


class AdvCAM(CAM, Method):
    """A trained classifier that is asked again and again about an image it likes ever more."""

    Config = AdvCAMConfig
    config: AdvCAMConfig

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Climb every tagged class; without tags, those that the classifier sees in each image."""
        if tags is None:
            tags = self.class_logits(image).sigmoid() > PRESENT
        return self._climbed(image, tags, self.config.iterations)

    def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
        """As `compute_cam` at every scale, with the same classes and fewer rounds at half size."""
        tags = views.tags
        if tags is None:
            logits = self.class_logits(views.images[views.nearest_full]).mean(dim=0, keepdim=True)
            tags = logits.sigmoid() > PRESENT
        config = self.config
        found = []
        for image, scale in zip(views.images, views.scales, strict=True):
            rows = tags.expand(len(image), -1)
            if scale <= HALF_SCALE:
                found.append(self._climbed(image, rows, config.half_iterations, HALF_WEIGHT))
            else:
                found.append(self._climbed(image, rows, config.iterations))
        return found

    def _climbed(self, image: Tensor, tags: Tensor, rounds: int, weight: float = 1.0) -> CamOutput:
        """Evidence of (N, 3, h, w) images whose classes with (N, F) `tags` have climbed.

        Their maps are means over `iterations` rounds, of which each counts `weight`.
        """
        with (
            torch.inference_mode(False),
            _weights_at_rest(self),
            label_autocast(self.config.label_precision, image.device.type),
        ):
            image = image.clone()  # a tensor of inference mode could not be differentiated
            with torch.no_grad():
                logits, cam = super().compute_cam(image)
                cam = cam.to(image.dtype, copy=True)
            row, key = tags.nonzero(as_tuple=True)
            share = weight / self.config.iterations
            for begin in range(0, len(row), self.config.at_once):
                part = slice(begin, begin + self.config.at_once)
                cam[row[part], key[part]] = share * self._climb(image[row[part]], key[part], rounds)
        return CamOutput(logits, cam)

    def _climb(self, image: Tensor, key: Tensor, rounds: int) -> Tensor:
        """Sum of the (K, h, w) positive class maps of K images while image k climbs class key_k.

        Source:
            Specification 4.5.
        """
        lowest, highest = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        first: Tensor | None = None
        total: Tensor | None = None
        for left in reversed(range(rounds)):
            with torch.set_grad_enabled(left > 0):
                image = image.detach().requires_grad_(left > 0)
                raw = self.head.raw(self.backbone(image).maps[-1])
                maps = raw.to(image.dtype).relu()  # (K, F, h, w)
                own = maps[torch.arange(len(key), device=key.device), key]  # (K, h, w)
                seen = own.detach()
                first = seen if first is None else first
                total = seen if total is None else total + seen
                if left:
                    wanted = self._height(maps, own, first, key).sum()
                    (slope,) = torch.autograd.grad(wanted, image)
                    largest = slope.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
                    image = image.detach() + self.config.step_size * slope / largest
                    image = torch.minimum(torch.maximum(image, lowest), highest)
        assert total is not None, "there is at least one round"
        return total

    def _height(self, maps: Tensor, own: Tensor, first: Tensor, key: Tensor) -> Tensor:
        """(K,) what the climb raises.

        Args:
            maps: (K, F, h, w) positive class maps of the images as they are now.
            own: (K, h, w) those of the climbing classes.
            first: (K, h, w) the same of the untouched images.
            key: (K,) climbing classes.

        Source:
            Specification 4.5: y_c - sum_{k != c} y_k - 7 sum |CAM - CAM_0| over the region,
            where CAM is Grad-CAM, `own` over the number of the class's positive weights.
        """
        score = maps.mean(dim=(2, 3))  # (K, F)
        rival = score.sum(dim=1) - 2 * score.gather(1, key[:, None])[:, 0]
        count = (self.head.classifier.weight[key] > 0).sum(dim=(1, 2, 3)).clamp_min(1)  # (K,)
        region = own > self.config.discriminative * own.detach().amax(dim=(1, 2), keepdim=True)
        drift = ((own - first).abs() * region).sum(dim=(1, 2)) / count
        return -rival - self.config.hold * drift


@contextmanager
def _weights_at_rest(network: nn.Module) -> Iterator[None]:
    """Keep weights out of the graph: nothing is stored or computed for their gradients."""
    asked = [weight for weight in network.parameters() if weight.requires_grad]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for weight in asked:
            weight.requires_grad_(True)
