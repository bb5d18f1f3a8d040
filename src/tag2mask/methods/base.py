"""The contract of a method: losses for training, class activation maps for inference.

A method has no files, no device and no optimizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from tag2mask.config.schema import MethodConfig
from tag2mask.errors import RecipeError
from tag2mask.functional.precision import LabelPrecision, label_autocast
from tag2mask.methods.confident import ConfidentLabels
from tag2mask.methods.protocol import (
    InferenceProtocol,
    MultiScaleCam,
    Propagation,
    ScaledViews,
)
from tag2mask.methods.true_masks import true_mask_loss
from tag2mask.models.base import Backbone
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch, DatasetView


class CamOutput(NamedTuple):
    """Class logits and class activation maps of a batch of views at one scale."""

    logits: Tensor
    """(N, F) image-level class logits."""
    cam: Tensor
    """(N, F, h, w) raw signed CAM at the network's grid; inference adds it up over scales and then
    normalizes it."""


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    name: str
    parameters: Sequence[nn.Parameter]
    rate: Literal["base", "head"]


@dataclass(frozen=True, slots=True)
class StageOutputs:
    """Trained methods of the earlier stages of a recipe, by stage name."""

    methods: Mapping[str, Method]

    def only(self, method: str) -> Method:
        """Return the one trained method that `method` starts from.

        Raises:
            RecipeError: If there is none, or more than one.
        """
        if len(self.methods) != 1:
            named = ", ".join(self.methods) or "none"
            raise RecipeError(
                f"method.name: {method} starts from one trained network, got {named}; "
                "give its stage 'from: STAGE'"
            )
        return next(iter(self.methods.values()))


class Method(nn.Module, ABC):
    """One paper: its losses in training and its class activation maps at inference.

    A new method is one file (or folder) in `methods` with one direct subclass and a `Config`, and
    one recipe. Implement `losses` and `compute_cam`; override the rest only where the paper differs
    from the default.
    """

    Config: ClassVar[type[MethodConfig]]
    protocol: ClassVar[InferenceProtocol] = MultiScaleCam()
    """How inference uses the method; a recipe can name another method's (`predict.protocol`)."""
    confident_labels: ClassVar[ConfidentLabels | None] = None
    """How the labels that this method learns from are made; None if it needs no confident ones."""
    propagation_radius: int = 8
    """Half side of the window in which a CAM propagates along the `affinity` of `attention_maps`,
    in positions of the last feature map (Specification 2.7: that of training)."""
    background_score: float = 0.45
    """Background score that inference sets beside the CAM; `build_method` reads it from the recipe.
    Only the loss on true masks needs it."""
    reads_masks: bool = False
    """Whether `losses` reads `batch.mask`; for other methods no mask is decoded."""

    def __init__(
        self,
        config: MethodConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        """Store the parts; subclasses add heads.

        Args:
            config: The recipe's section `method`.
            backbone: Carries its weights already.
            num_foreground: F, without background.
            refiner: Refines pseudo-labels in training; None without.
            steps: Optimizer steps of the run, for schedules given as fractions.
        """
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.num_foreground = num_foreground
        self.refiner = refiner
        self.steps = steps
        self.monitor: dict[str, Tensor] = {}
        if config.freeze_norms:
            freeze_loaded_norms(backbone)

    def forward(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute `losses`, and the loss on true masks if only some images have one.

        A parallel wrapper calls a method through `forward`.
        """
        losses = self.losses(batch, step)
        weight = self.config.true_mask_weight
        if self.reads_masks or not batch.masked_rows or not weight:
            return losses
        return {**losses, "true_masks": weight * true_mask_loss(self, batch)}

    @abstractmethod
    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute named scalar losses, already weighted; the trainer adds them up.

        Put detached values that are worth logging into `self.monitor`.
        """

    @abstractmethod
    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Compute logits and CAM of (N, 3, H, W) normalized images at one scale.

        Args:
            image: As `Backbone.normalize` returns it.
            tags: (N, F), for methods that read tags while labeling; most ignore them.
        """

    def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
        """Compute logits and CAM of an image at all its scales, one output per scale.

        Override it if scales are not independent; the images of a batch then come one by one. It
        runs without gradients; a method that needs gradients enables them itself.
        """
        tags = views.tags
        return [
            self.compute_cam(
                image, None if tags is None else tags.repeat(len(image) // len(tags), 1)
            )
            for image in views.images
        ]

    @property
    def works_while_labeling(self) -> bool:
        """Whether maps depend on tags or other images, so that they are made for labels only."""
        return type(self).compute_multi_scale_cam is not Method.compute_multi_scale_cam

    def with_dataset(self, dataset: DatasetView) -> Self:
        """Return this network with access to the images of a labeling run; most need no others.

        Override it by a copy that shares all tensors (`scratch.shallow_copy`); the method itself
        must not change. Called by `Segmenter.with_dataset`.
        """
        return self

    def class_logits(self, image: Tensor) -> Tensor:
        """(N, F) class logits of normalized images; override it if `compute_cam` is expensive."""
        return self.compute_cam(image).logits

    @property
    def has_decoder(self) -> bool:
        """Whether `segmentation` returns logits."""
        return type(self).segmentation is not Method.segmentation

    def segmentation(self, image: Tensor) -> Tensor | None:
        """(N, C, h, w) decoder logits of normalized images at its own grid, background first.

        None without a decoder; masks then come from `compute_cam`.
        """
        return None

    def attention_maps(self, image: Tensor) -> Mapping[str, Tensor]:
        """Affinity and attention of normalized images, for propagation and figures; may be empty.

        `affinity` is (N, L, L) in [0, 1] over the grid of the last feature map. `attention` has the
        same shape, and its rows sum to 1.
        """
        return {}

    def propagation(self, image: Tensor) -> Propagation | None:
        """Return a function that propagates the CAM of one normalized image.

        By default None: the CAM propagates along the `affinity` of `attention_maps`. Override it
        for grids that are too large for a matrix of all pairs.
        """
        return None

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Put loaded weights into the base group and all others into the head group."""
        loaded = {f"backbone.{name}" for name in self.backbone.loaded}
        base: list[nn.Parameter] = []
        head: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                (base if name in loaded else head).append(parameter)
        groups = (ParameterGroup("base", base, "base"), ParameterGroup("head", head, "head"))
        return tuple(group for group in groups if group.parameters)

    def setup(self, earlier: StageOutputs) -> None:
        """Receive the networks of earlier stages, once, after construction; most need none.

        Copy weights, or register a network as a frozen submodule, so that the weights file of a run
        is complete. `train` is called on the method afterwards: a method that registers a network
        must also keep it in evaluation mode.
        """


def labeled_pixels(batch: Batch, method: str) -> Tensor:
    """Return the (N, H, W) masks that a method with `reads_masks` learns from.

    Raises:
        RecipeError: If the images have no masks.
    """
    if batch.mask is None:
        raise RecipeError(f"method.name: {method} learns from masks; give its stage 'labels:'")
    return batch.mask


@contextmanager
def labeling(backbone: Backbone, precision: LabelPrecision, device_type: str) -> Iterator[None]:
    """Run a backbone for pseudo-labels during training.

    No gradient, no dropped paths, no batch statistics from rescaled views; in bfloat16 if
    `precision` says so. Afterwards the backbone has its former mode.
    """
    with evaluating(backbone), torch.no_grad(), label_autocast(precision, device_type):
        yield


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode; afterwards every part has its former mode."""
    modes = [(part, part.training) for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def freeze_loaded_norms(backbone: Backbone) -> None:
    """Freeze the normalization parameters that a checkpoint filled.

    Source:
        Specification 2.9 and R20: AFA gives parameters whose name contains "norm" a learning rate
        of 0, which is the same for the Mix Transformer.
    """
    for module_name, layer in backbone.named_modules():
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            for name, parameter in layer.named_parameters(prefix=module_name):
                if name in backbone.loaded:
                    parameter.requires_grad_(False)
