"""RIB: fine-tunes the classifier on each image, without the saturation of its last activation.

Paper: Reducing Information Bottleneck for Weakly Supervised Semantic Segmentation (Lee, Choi, Mok,
    Yoon, NeurIPS 2021).

Works while labeling, with the weights of a trained `cam`, whose parameters have the same names; it
has no training of its own, and its loss is that of `cam`.

1. For each image the classifier is fine-tuned for 10 steps on the image at all its scales, and on
   20 images that share no class with it, which keep it from liking everything.
2. The loss, -sum of the logits of the tags, saturates nowhere.
3. A logit is the mean of its class map over space with the map's peaks left out (GNDRP, map / max
   < 0.4), so that what says little now learns to say more.
4. Class maps are added over the steps, until the logits or the maps grow out of hand.

The network itself is never changed: steps are taken by copies of its parameters, so there is
nothing to restore, whatever happens.

Departures: which 20 images, depends on `seed` and the image's name alone, neither on the order of
images nor on processes; they are drawn once per image, and resized to squares of `companion_px`.
Plain gradient descent at one rate, as the published optimizer's momentum is next to none. In the
loss each scale, the mean of both mirror images, and each companion count alike. The step that grew
out of hand adds no map. Without tags the classifier's own classes are used, and without a labeling
run (`predict`, one image in Python) no companions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tag2mask.config.schema import Fraction
from tag2mask.errors import DataError
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.cam import CAM, PRESENT, CAMConfig
from tag2mask.methods.protocol import ScaledViews
from tag2mask.models.base import Backbone
from tag2mask.models.classifier import ClassActivationHead
from tag2mask.refiners.base import Refiner
from tag2mask.types import DatasetView

AT_ONCE = 8
"""Companions in one pass; costs memory only."""

Weights = dict[str, Tensor]


class RIBConfig(CAMConfig):
    """The network is that of `cam`, with the same keys; fine-tuning is the paper's for VOC."""

    name: str = "rib"
    iterations: int = Field(default=10, ge=0)
    """Fine-tuning steps per image; 0: the plain map."""
    rate: PositiveFloat = 8.0e-6
    """Learning rate of the backbone (COCO: 5e-6)."""
    head_factor: PositiveFloat = 10.0
    """The head's learning rate as a multiple of it."""
    companions: int = Field(default=20, ge=0)
    """Images without a common class that are learned with each image (COCO: 15)."""
    companion_px: int = Field(default=320, ge=32, multiple_of=32)
    """Side of the square they are resized to."""
    pooled_below: PositiveFloat = 0.4
    """Share of a map's peak below which it is pooled (COCO: 0.5); above 1: plain mean."""
    most_logits: PositiveFloat = 600.0
    """Sum of the image's logits over scales and tags at which fine-tuning stops (COCO: 1000)."""
    covered_above: Fraction = 0.3
    """Share of a map's peak from which a pixel counts as covered."""
    most_covered: Fraction = 0.7
    """Share of covered pixels of any class at which fine-tuning stops (COCO: 0.8)."""
    seed: int = Field(default=1, ge=0)
    """Seed of the choice of companions."""


class _Lesson(NamedTuple):
    """Images of one size to learn from."""

    image: Tensor
    """(N, 3, h, w) normalized."""
    tags: Tensor
    """(N, F) in {0, 1}."""
    weight: float
    """What each image counts in the loss."""


class _Network(nn.Module):
    """Backbone and classifier as one function of their weights."""

    def __init__(self, backbone: Backbone, head: ClassActivationHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        """(N, F, h, w) signed class maps."""
        return self.head.raw(self.backbone(image).maps[-1])


class RIB(CAM, Method):
    """A trained classifier that learns each image for itself, and forgets it again."""

    Config = RIBConfig
    config: RIBConfig

    def __init__(
        self,
        config: RIBConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self._images: DatasetView | None = None

    def set_dataset(self, images: DatasetView | None) -> None:
        """Keep the images that companions are drawn from."""
        self._images = images

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Fine-tune on each image, at this scale alone."""
        seen: list[CamOutput] = []
        for at in range(len(image)):
            own = None if tags is None else tags[at : at + 1]
            seen += self.compute_multi_scale_cam(ScaledViews([image[at : at + 1]], [1.0], own))
        logits, cams = zip(*seen, strict=True)
        return CamOutput(torch.cat(logits), torch.cat(cams))

    def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
        """Fine-tune on one image at all its scales; maps are means over the steps."""
        with torch.inference_mode(False):
            images = [image.clone() for image in views.images]  # may come from inference mode
            seen_by_cam = super().compute_cam
            with torch.no_grad():
                plain = [seen_by_cam(image) for image in images]
            full, tags = views.nearest_full, views.tags
            if tags is None:
                tags = (plain[full].logits.mean(dim=0, keepdim=True).sigmoid() > PRESENT).float()
            if not tags.any():
                return plain
            own = [_Lesson(one, tags.expand(len(one), -1), 1 / len(one)) for one in images]
            others = [] if self.config.iterations == 0 else self._companions(views.name, tags)
            maps = self._added_maps(own, others, full)
        return [
            CamOutput(seen.logits, torch.where(tags[:, :, None, None] > 0, found, seen.cam.float()))
            for seen, found in zip(plain, maps, strict=True)
        ]

    def _added_maps(
        self, own: Sequence[_Lesson], others: Sequence[_Lesson], full: int
    ) -> Sequence[Tensor]:
        """Mean over the steps of the positive (V, F, h, w) class maps, per scale.

        Args:
            own: The image at every scale.
            others: Its companions.
            full: Which scale is looked at to tell how much a class covers.
        """
        network = _Network(self.backbone, self.head)
        weights: Weights = {
            name: parameter.detach().clone().requires_grad_()
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        }
        totals: list[Tensor] = []
        count = 0
        for left in reversed(range(self.config.iterations + 1)):
            with torch.set_grad_enabled(left > 0):
                maps = [functional_call(network, weights, (one.image,)) for one in own]
                logits = torch.stack(
                    [self._tag_logits(cam, one) for cam, one in zip(maps, own, strict=True)]
                ).sum()
            seen = [cam.detach().float().relu() for cam in maps]
            ends = self._out_of_hand(logits, seen[full], own[full].tags)
            if ends and totals:
                break
            totals = [a + b for a, b in zip(totals, seen, strict=True)] if totals else seen
            count += 1
            if ends or not left:
                break
            weights = self._stepped(network, weights, logits, others)
        return [total / count for total in totals]

    def _stepped(
        self, network: nn.Module, weights: Weights, logits: Tensor, others: Sequence[_Lesson]
    ) -> Weights:
        """Weights after one step that raises the logits of the image's tags and its companions'."""
        slopes = _slopes(logits, weights)
        for lesson in others:
            with torch.enable_grad():
                cam = functional_call(network, weights, (lesson.image,))
                more = _slopes(self._tag_logits(cam, lesson), weights)
            slopes = [a + b for a, b in zip(slopes, more, strict=True)]
        rates = (
            self.config.rate * (self.config.head_factor if name.startswith("head.") else 1.0)
            for name in weights
        )
        return {
            name: (weight.detach() + rate * slope).requires_grad_()
            for (name, weight), rate, slope in zip(weights.items(), rates, slopes, strict=True)
        }

    def _tag_logits(self, cam: Tensor, lesson: _Lesson) -> Tensor:
        """Sum of the logits of the tags of some images: minus their part of the loss."""
        logits = pool_weak(cam.float(), self.config.pooled_below)
        return lesson.weight * (logits * lesson.tags).sum()

    def _out_of_hand(self, logits: Tensor, maps: Tensor, tags: Tensor) -> bool:
        """Tell whether fine-tuning has to stop.

        Args:
            logits: Sum over scales and tags.
            maps: (V, F, h, w) positive class maps of the image at full size.
            tags: (V, F) in {0, 1}.
        """
        peak = maps.amax(dim=(2, 3), keepdim=True)
        covered = (maps > self.config.covered_above * peak).float().mean(dim=(2, 3))  # (V, F)
        most = (covered * tags).mean(dim=0).amax()
        return bool((logits.abs() > self.config.most_logits) | (most > self.config.most_covered))

    def _companions(self, name: str, tags: Tensor) -> Sequence[_Lesson]:
        """Draw images that share no class with an image of (1, F) `tags`, in portions."""
        if self._images is None:
            return []
        side = self.config.companion_px
        images: list[Tensor] = []
        rows: list[Tensor] = []
        for index in _disjoint(self._images, name, tags[0].float().cpu().numpy(), self.config.seed):
            if len(images) == self.config.companions:
                break
            try:
                image = self._images.image(index)[None].to(tags.device)
            except DataError:
                continue  # the labeling run will say so when it comes to that image
            resized = F.interpolate(image.float(), (side, side), mode="bilinear", antialias=True)
            images.append(self.backbone.normalize(resized))
            rows.append(torch.from_numpy(self._images.tags[index]).to(tags)[None])
        portions = range(0, len(images), AT_ONCE)
        return [
            _Lesson(torch.cat(images[at : at + AT_ONCE]), torch.cat(rows[at : at + AT_ONCE]), 1.0)
            for at in portions
        ]


def pool_weak(cam: Tensor, below: float) -> Tensor:
    """Mean of (N, F, h, w) class maps over space, with what is near a map's peak left out.

    Args:
        cam: Any sign. A map that is positive nowhere gives 0.
        below: Share of the peak from which on a pixel is left out; it still counts as a zero.

    Returns:
        (N, F) logits.

    Source:
        RIB's GNDRP; Specification 4.6: mean of x 1[x / max < below]. No gradient through
        the choice of pixels.
    """
    peak = cam.detach().amax(dim=(2, 3), keepdim=True)
    return (cam * ((cam < below * peak) & (peak > 0))).mean(dim=(2, 3))


def _slopes(logits: Tensor, weights: Weights) -> Sequence[Tensor]:
    """Gradient of one number to every weight; 0 for those it does not depend on."""
    return torch.autograd.grad(logits, list(weights.values()), materialize_grads=True)


def _disjoint(
    images: DatasetView, name: str, tags: npt.NDArray[np.float32], seed: int
) -> Iterator[int]:
    """Yield other images that show a class but none of `tags`, shuffled by seed and image name."""
    shared = (images.tags * (tags > 0)).any(axis=1)
    found = np.flatnonzero(~shared & images.tags.any(axis=1))
    ordered = sorted(
        (index for index in map(int, found) if images.names[index] != name),
        key=lambda index: images.names[index],
    )
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    shuffle = np.random.default_rng([seed, int.from_bytes(digest)])
    for index in shuffle.permutation(len(ordered)):
        yield ordered[index]
