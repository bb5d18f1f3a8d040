"""RIB: fine-tune the classifier on each image, without a saturating last activation.

Paper: Reducing Information Bottleneck for Weakly Supervised Semantic Segmentation (Lee, Choi, Mok,
    Yoon, NeurIPS 2021, https://arxiv.org/abs/2110.06530).

RIB works at labeling time with the weights of a trained `cam`; its parameters have the same names.
It has no training of its own: its loss is that of `cam`.

1. For each image, fine-tune the classifier for 10 steps on the image at all its scales, and on 20
   reference images that share no class with it. They keep the classifier from raising every logit.
2. The loss, minus the sum of the logits of the tags, saturates nowhere.
3. A logit is the mean of its class map without the map's peaks (GNDRP: pixels with map / max <
   0.4), so that less discriminative regions contribute more.
4. Add up the class maps over the steps, until the logits or the covered area exceed a limit.

The network itself never changes: the steps update a scratch copy of each call, so nothing has to be
restored, and threads can share the network.

Departs:
    - The choice of reference images depends on `seed` and the image's name alone, not on the order
      of images or the number of processes. They are drawn once per image and resized to squares of
      `reference_px`.
    - Plain gradient descent with one learning rate: the published optimizer has almost no momentum.
    - In the loss, each scale (the mean over both flips) and each reference image has weight 1.
    - The step that exceeds a limit adds no map.
    - Without tags, the classes predicted by the classifier are used. Without a labeling run
      (`predict`, or one image in Python) there are no reference images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from tag2mask.config.schema import MOST_IMAGES, Fraction, Seed
from tag2mask.errors import DataError
from tag2mask.methods.base import CamOutput, Method
from tag2mask.methods.cam import CAM, PRESENT, CAMConfig
from tag2mask.methods.protocol import ScaledViews
from tag2mask.models.base import Backbone
from tag2mask.models.classifier import ClassActivationHead
from tag2mask.models.scratch import scratch_copy, shallow_copy
from tag2mask.refiners.base import Refiner
from tag2mask.types import DatasetView

REFERENCE_BATCH = 8
"""Reference images per pass; affects memory only."""


class RIBConfig(CAMConfig):
    """The keys of `cam` describe the network; the other defaults are the paper's for VOC."""

    name: str = "rib"
    iterations: int = Field(default=10, ge=0, le=2**16)
    """Fine-tuning steps per image; 0 gives the plain map."""
    lr: PositiveFloat = 8.0e-6
    """Learning rate of the backbone (COCO: 5e-6)."""
    head_lr_factor: PositiveFloat = 10.0
    """Learning rate of the head as a multiple of `lr`."""
    num_reference_images: int = Field(default=20, ge=0, le=MOST_IMAGES)
    """Images without a common class that each image is fine-tuned with (COCO: 15)."""
    reference_px: int = Field(default=320, ge=32, le=8192, multiple_of=32)
    """Side in pixels of the square that reference images are resized to."""
    gndrp_threshold: PositiveFloat = 0.4
    """Pixels below this fraction of the map's maximum are pooled (COCO: 0.5); above 1: all."""
    max_logit_sum: PositiveFloat = 600.0
    """Fine-tuning stops when the image's logits, summed over scales and tags, exceed this (COCO:
    1000)."""
    coverage_threshold: Fraction = 0.3
    """Pixels above this fraction of the map's maximum count as covered."""
    max_coverage: Fraction = 0.7
    """Fine-tuning stops when any class covers more than this fraction of the image (COCO: 0.8)."""
    seed: Seed = 1
    """Seed of the choice of reference images."""


class _FineTuneBatch(NamedTuple):
    """Images of one size to fine-tune on."""

    image: Tensor
    """(N, 3, h, w) normalized."""
    tags: Tensor
    """(N, F) in {0, 1}."""
    weight: float
    """Weight of each image in the loss."""


class _Network(nn.Module):
    """Backbone and classifier as one function of their weights."""

    def __init__(self, backbone: Backbone, head: ClassActivationHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        """Compute the (N, F, h, w) signed class maps."""
        return self.head.raw(self.backbone(image).maps[-1])


class RIB(CAM, Method):
    """A trained classifier that is fine-tuned on each image separately."""

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
        self._dataset: DatasetView | None = None
        network = _Network(self.backbone, self.head)
        self._tuned = {name for name, one in network.named_parameters() if one.requires_grad}

    def with_dataset(self, dataset: DatasetView) -> Self:
        """Return this network with the images that reference images are drawn from."""
        return shallow_copy(self, _dataset=dataset)

    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Fine-tune on each image at this scale alone."""
        outputs: list[CamOutput] = []
        for index in range(len(image)):
            own_tags = None if tags is None else tags[index : index + 1]
            views = ScaledViews([image[index : index + 1]], [1.0], own_tags)
            outputs += self.compute_multi_scale_cam(views)
        logits, cams = zip(*outputs, strict=True)
        return CamOutput(torch.cat(logits), torch.cat(cams))

    def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
        """Fine-tune on one image at all its scales; the maps are means over the steps.

        In fp32, whatever the precision around it: small steps are lost in bf16.
        """
        autocast = torch.autocast(views.images[0].device.type, enabled=False)
        with torch.inference_mode(False), autocast:
            images = [image.clone() for image in views.images]  # may be inference tensors
            compute_plain_cam = super().compute_cam
            with torch.no_grad():
                plain_outputs = [compute_plain_cam(image) for image in images]
            full, tags = views.nearest_full, views.tags
            if tags is None:
                logits = plain_outputs[full].logits.mean(dim=0, keepdim=True)
                tags = (logits.sigmoid() > PRESENT).float()
            if not tags.any():
                return plain_outputs
            own = [
                _FineTuneBatch(image, tags.expand(len(image), -1), 1 / len(image))
                for image in images
            ]
            references: Sequence[_FineTuneBatch] = []
            if self.config.iterations:
                references = self._reference_batches(views.name, tags)
            cams = self._fine_tuned_cams(own, references, full)
        return [
            CamOutput(plain.logits, torch.where(tags[:, :, None, None] > 0, cam, plain.cam.float()))
            for plain, cam in zip(plain_outputs, cams, strict=True)
        ]

    def _fine_tuned_cams(
        self, own: Sequence[_FineTuneBatch], references: Sequence[_FineTuneBatch], full: int
    ) -> Sequence[Tensor]:
        """Compute the mean positive (V, F, h, w) class maps over the steps, per scale.

        Args:
            own: The image at every scale.
            references: Its reference images.
            full: Index of the scale whose maps measure coverage.
        """
        # By name, because another method may keep this network frozen.
        network = scratch_copy(_Network(self.backbone, self.head), trainable=self._tuned)
        totals: list[Tensor] = []
        count = 0
        for remaining in reversed(range(self.config.iterations + 1)):
            with torch.set_grad_enabled(remaining > 0):
                cams = [network(batch.image) for batch in own]
                logits = torch.stack(
                    [self._tag_logits(cam, batch) for cam, batch in zip(cams, own, strict=True)]
                ).sum()
            positive = [cam.detach().float().relu() for cam in cams]
            stop = self._exceeds_limits(logits, positive[full], own[full].tags)
            if stop and totals:
                break
            if totals:
                totals = [total + cam for total, cam in zip(totals, positive, strict=True)]
            else:
                totals = positive
            count += 1
            if stop or not remaining:
                break
            self._take_step(network, logits, references)
        return [total / count for total in totals]

    def _take_step(
        self, network: nn.Module, logits: Tensor, references: Sequence[_FineTuneBatch]
    ) -> None:
        """Take one gradient step that raises the tag logits of the image and its references.

        Args:
            network: The scratch copy; its weights change.
            logits: Scalar of the image, with its graph.
            references: Its reference images.
        """
        weights = {name: one for name, one in network.named_parameters() if one.requires_grad}
        gradients = _gradients(logits, weights.values())
        for batch in references:
            with torch.enable_grad():
                added = _gradients(self._tag_logits(network(batch.image), batch), weights.values())
            gradients = [total + gradient for total, gradient in zip(gradients, added, strict=True)]
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                factor = self.config.head_lr_factor if name.startswith("head.") else 1.0
                weight.add_(self.config.lr * factor * gradient)

    def _tag_logits(self, cam: Tensor, batch: _FineTuneBatch) -> Tensor:
        """Sum the weighted tag logits of a batch: minus its part of the loss."""
        logits = gndrp(cam.float(), self.config.gndrp_threshold)
        return batch.weight * (logits * batch.tags).sum()

    def _exceeds_limits(self, logits: Tensor, cam: Tensor, tags: Tensor) -> bool:
        """Decide whether fine-tuning must stop.

        Args:
            logits: Scalar, sum over scales and tags.
            cam: (V, F, h, w) positive class maps of the image at full size.
            tags: (V, F) in {0, 1}.
        """
        peak = cam.amax(dim=(2, 3), keepdim=True)
        covered = (cam > self.config.coverage_threshold * peak).float().mean(dim=(2, 3))  # (V, F)
        coverage = (covered * tags).mean(dim=0).amax()
        exceeds = logits.abs() > self.config.max_logit_sum
        return bool(exceeds | (coverage > self.config.max_coverage))

    def _reference_batches(self, name: str, tags: Tensor) -> Sequence[_FineTuneBatch]:
        """Draw reference images that share no class with an image of (1, F) `tags`."""
        if self._dataset is None:
            return []
        side = self.config.reference_px
        images: list[Tensor] = []
        rows: list[Tensor] = []
        own_tags = tags[0].float().cpu().numpy()
        for index in _disjoint_images(self._dataset, name, own_tags, self.config.seed):
            if len(images) == self.config.num_reference_images:
                break
            try:
                image = self._dataset.image(index)[None].to(tags.device)
            except DataError:
                continue  # the labeling run reports it when it reaches that image
            resized = F.interpolate(image.float(), (side, side), mode="bilinear", antialias=True)
            images.append(self.backbone.normalize(resized))
            rows.append(torch.from_numpy(self._dataset.tags[index]).to(tags)[None])
        parts = [
            slice(start, start + REFERENCE_BATCH)
            for start in range(0, len(images), REFERENCE_BATCH)
        ]
        return [
            _FineTuneBatch(torch.cat(images[part]), torch.cat(rows[part]), 1.0) for part in parts
        ]


def gndrp(cam: Tensor, threshold: float) -> Tensor:
    """Average (N, F, h, w) class maps over space without the pixels near each map's maximum.

    GNDRP is RIB's global non-discriminative region pooling.

    Args:
        cam: Any sign. A map that is positive nowhere gives 0.
        threshold: Pixels at or above this fraction of the maximum are left out; they still count as
            zeros in the mean.

    Returns:
        (N, F) logits.

    Source:
        Specification 4.6: mean of x 1[x / max < threshold]. No gradient through the selection of
        pixels.
    """
    peak = cam.detach().amax(dim=(2, 3), keepdim=True)
    return (cam * ((cam < threshold * peak) & (peak > 0))).mean(dim=(2, 3))


def _gradients(logits: Tensor, weights: Iterable[Tensor]) -> Sequence[Tensor]:
    """Compute the gradient of a scalar with respect to every weight; 0 for unused weights."""
    return torch.autograd.grad(logits, list(weights), materialize_grads=True)


def _disjoint_images(
    dataset: DatasetView, name: str, tags: npt.NDArray[np.float32], seed: int
) -> Iterator[int]:
    """Yield tagged images without any class of `tags`, shuffled by seed and image name."""
    shared = (dataset.tags * (tags > 0)).any(axis=1)
    disjoint = np.flatnonzero(~shared & dataset.tags.any(axis=1))
    ordered = sorted(
        (index for index in map(int, disjoint) if dataset.names[index] != name),
        key=lambda index: dataset.names[index],
    )
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    shuffle = np.random.default_rng([seed, int.from_bytes(digest)])
    for index in shuffle.permutation(len(ordered)):
        yield ordered[index]
