"""AdvCAM: anti-adversarial climbing, which changes an image until its CAM covers the object.

Paper: Anti-Adversarially Manipulated Attributions for Weakly and Semi-Supervised Semantic
    Segmentation (Lee, Kim, Yoon, CVPR 2021, https://arxiv.org/abs/2103.08896).

AdvCAM works at labeling time with the weights of a trained `cam`; its parameters have the same
names. It has no training of its own: its loss is that of `cam`.

1. For each present class c, the image ascends the gradient of y_c - sum_{k != c} y_k, where y is
   the mean of the positive part of a class map: x <- clip(x + 0.08 g / max|g|).
2. The discriminative region {map / max > 0.5} is held at its initial value (weight 7), so that
   other parts of the object grow.
3. The class maps of all 27 iterations are added up, over all scales. At half size there are 13
   iterations, so that it counts half of the other scales.
4. An image and its flipped copy ascend together: they share the sum of their Grad-CAMs, its region
   and denominator, and max|g|.

The map is Grad-CAM on the last features in closed form. The gradient of sum ReLU(map_c) with
respect to the features is the classifier's weight w_c wherever the map is positive. Summed and
divided by the number of the map's positive entries, it is w_c over the number of positive entries
of w_c. Grad-CAM is therefore exactly ReLU(map_c) over that number and needs no backward pass. (With
`width`, the features are those of the extra layer.)

Departs:
    - All classes of all images ascend together in one batch, and no weight gradient is computed.
      The maps are identical in float64 after all iterations; in float32 the ascent amplifies
      rounding, whichever way it is computed.
    - The image is clipped to the value range of the original image.
    - Classes that do not ascend keep their plain map, as strong as without any ascent.
    - `compute_cam` takes every image as one without a flipped copy.
    - Without tags, the classes predicted by the classifier ascend.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from tag2mask.config.schema import LARGEST_BATCH, Fraction
from tag2mask.functional.precision import LabelPrecision, label_autocast
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.cam import CAM, PRESENT, CAMConfig
from tag2mask.methods.protocol import ScaledViews
from tag2mask.models.scratch import scratch_copy

HALF_SCALE = 0.5
"""At this scale and below there are `half_iterations`."""


class AdvCAMConfig(CAMConfig):
    """The keys of `cam` describe the network; the defaults of the ascent are the paper's."""

    name: str = "advcam"
    iterations: int = Field(default=27, ge=1, le=2**16)
    """Iterations of the ascent; their maps are added up. 1 gives the plain map."""
    half_iterations: int = Field(default=13, ge=1, le=2**16)
    """Iterations at scale 0.5 and below; fewer also count less beside the other scales."""
    step_size: PositiveFloat = 0.08
    """Largest change of a normalized pixel value per iteration."""
    regularization_weight: float = Field(default=7.0, ge=0)
    """Weight of the term that holds the discriminative region; 0 lets the region grow without
    limit."""
    discriminative_threshold: Fraction = 0.5
    """Pixels above this fraction of the map's maximum form the discriminative region."""
    max_batch_size: int = Field(default=16, ge=1, le=LARGEST_BATCH)
    """Most images that ascend in one pass, one per class, image and flipped copy; affects memory
    and speed only."""
    label_precision: LabelPrecision = "auto"
    """Arithmetic of the ascent; auto: bf16 where the processor computes it fast."""


class AdvCAM(CAM, Method):
    """A trained classifier and gradient ascent on the image at labeling time."""

    Config = AdvCAMConfig
    config: AdvCAMConfig

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Ascend every tagged class; without tags, the classes predicted for each image."""
        if tags is None:
            tags = self.class_logits(image).sigmoid() > PRESENT
        return self._ascended_cam(image, tags, self.config.iterations, views=1)

    def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
        """Ascend at every scale for the same classes, with fewer iterations at half size."""
        tags = views.tags
        if tags is None:
            logits = self.class_logits(views.images[views.nearest_full]).mean(dim=0, keepdim=True)
            tags = logits.sigmoid() > PRESENT
        config = self.config
        outputs = []
        for image, scale in zip(views.images, views.scales, strict=True):
            iterations = config.half_iterations if scale <= HALF_SCALE else config.iterations
            view_tags = tags.expand(len(image), -1)
            outputs.append(self._ascended_cam(image, view_tags, iterations, views=len(image)))
        return outputs

    def _ascended_cam(self, image: Tensor, tags: Tensor, iterations: int, views: int) -> CamOutput:
        """Compute logits and CAM of (N, 3, h, w) images after the ascent of their tagged classes.

        Args:
            image: Normalized; `views` consecutive ones are an image and its flipped copy.
            tags: (N, F), the same for all views of an image; the other classes keep their plain
                map.
            iterations: Of the ascent; the sum of maps is divided by the config's `iterations`.
            views: 2 if each image has a flipped copy, else 1.
        """
        with (
            torch.inference_mode(False),
            label_autocast(self.config.label_precision, image.device.type),
        ):
            frozen = scratch_copy(self)  # nothing is stored or computed for gradients of weights
            image = image.clone()  # an inference tensor cannot be differentiated
            with torch.no_grad():
                logits, cam = super().compute_cam(image)
                cam = cam.to(image.dtype, copy=True)
            class_index, row = tags.T.nonzero(as_tuple=True)  # all views of a class in a row
            size = max(self.config.max_batch_size // views, 1) * views
            for start in range(0, len(row), size):
                part = slice(start, start + size)
                total = frozen._ascend(image[row[part]], class_index[part], iterations, views)
                cam[row[part], class_index[part]] = total / self.config.iterations
        return CamOutput(logits, cam)

    def _ascend(self, image: Tensor, class_index: Tensor, iterations: int, views: int) -> Tensor:
        """Sum the positive maps of one class per image over the iterations of its ascent.

        Args:
            image: (K, 3, h, w) normalized; `views` consecutive ones ascend together.
            class_index: (K,) class that each image ascends.
            iterations: At least 1.
            views: 2 if each image has a flipped copy, else 1.

        Returns:
            (K, h', w') sum of positive class maps, each times the weight of its view.

        Source:
            Specification 4.5.
        """
        lowest, highest = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        initial: Tensor | None = None
        total: Tensor | None = None
        for remaining in reversed(range(iterations)):
            with torch.set_grad_enabled(remaining > 0):
                image = image.detach().requires_grad_(remaining > 0)
                raw = self.head.raw(self.backbone(image).maps[-1])
                cam = raw.to(image.dtype).relu()  # (K, F, h, w)
                row = torch.arange(len(class_index), device=class_index.device)
                class_map = cam[row, class_index]  # (K, h, w)
                class_map = class_map * _view_weights(class_map, views)
                shared = _add_views(class_map, views)  # (K / views, h, w)
                initial = shared.detach() if initial is None else initial
                total = class_map.detach() if total is None else total + class_map.detach()
                if remaining:
                    objective = self._objective(cam, shared, initial, class_index)
                    (gradient,) = torch.autograd.grad(objective, image)
                    largest = gradient.abs().reshape(len(shared), -1).amax(dim=1)
                    largest = largest.clamp_min(1e-12).repeat_interleave(views)
                    rate = self.config.step_size / largest[:, None, None, None]
                    image = image.detach() + rate * gradient
                    image = torch.minimum(torch.maximum(image, lowest), highest)
        assert total is not None, "there is at least one iteration"
        return total

    def _objective(
        self, cam: Tensor, shared: Tensor, initial: Tensor, class_index: Tensor
    ) -> Tensor:
        """Compute the objective that the ascent maximizes, the sum over all images.

        Args:
            cam: (K, F, h, w) positive class maps of the current images.
            shared: (K / views, h, w) map of each ascending class, the weighted mean of the views.
            initial: (K / views, h, w) the same of the original images.
            class_index: (K,) ascending classes.

        Source:
            Specification 4.5: y_c - sum_{k != c} y_k - 7 sum |CAM - CAM_0| over the region. Here
            CAM is Grad-CAM: `shared` over the number of the class's positive weights.
        """
        score = cam.mean(dim=(2, 3))  # (K, F)
        others = score.sum(dim=1) - 2 * score.gather(1, class_index[:, None])[:, 0]
        views = len(class_index) // len(shared)
        positive_weights = self.head.classifier.weight[class_index[::views]] > 0
        count = positive_weights.sum(dim=(1, 2, 3)).clamp_min(1)  # (K / views,)
        peak = shared.detach().amax(dim=(1, 2), keepdim=True)
        region = shared > self.config.discriminative_threshold * peak
        change = ((shared - initial).abs() * region).sum(dim=(1, 2)) / count
        hold: Tensor = self.config.regularization_weight * change.sum()
        return -others.sum() - hold


def _view_weights(class_map: Tensor, views: int) -> Tensor:
    """Compute the (K, 1, 1) weight of each view, around 1; all views of an image sum to `views`.

    Grad-CAM sums gradients over the positive positions of one view and divides by the number of
    positive gradients in all views of an image.
    """
    positive = (class_map.detach() > 0).sum(dim=(1, 2)).view(-1, views).to(class_map.dtype)
    weights = views * positive / positive.sum(dim=1, keepdim=True).clamp_min(1)
    return weights.view(-1, 1, 1)


def _add_views(class_map: Tensor, views: int) -> Tensor:
    """Average the (h, w) map of each image and the flipped-back one of its flipped copy."""
    if views == 1:
        return class_map
    pairs = class_map.view(-1, views, *class_map.shape[1:])
    return (pairs[:, 0] + pairs[:, 1].flip(-1)) / views
