"""What a method promises: a training objective and a way to score pixels.

No files, no devices, no optimiser.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tag2mask import plugins
from tag2mask.errors import RecipeError
from tag2mask.functional.cam import normalise_cam, upsample
from tag2mask.functional.precision import LabelPrecision, label_autocast
from tag2mask.functional.pseudo_label import key_probability
from tag2mask.models.base import Backbone
from tag2mask.recipe import MethodConfig, Recipe
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch, TaggedPhotos

SCORE_OF_BACKGROUND = 0.45
"""Score of background beside normalised evidence (methods specification 2.3)."""


Propagation = Callable[[Tensor], Tensor]
"""Spreads (1, K, h, w) evidence of chosen classes in [0, 1] over one photo: (1, K, h', w') evidence
in [0, 1], or (1, 1 + K, h', w') non-negative scores, background first, the largest wins."""


class Evidence(NamedTuple):
    """What one view of a photo says about the classes."""

    logit: Tensor
    """(N, F) image-level class logits."""
    cam: Tensor
    """(N, F, h, w) raw signed class evidence at the network's grid; test-time adds it over scales,
    then normalises."""


class Views(NamedTuple):
    """One photo as test time looks at it: every scale, mirror images beside."""

    images: Sequence[Tensor]
    """Per scale (V, 3, h, w) normalised; V is 2 where the mirrored photo is looked at too."""
    scales: Sequence[float]
    """Factors of the photo's working size."""
    tags: Tensor | None = None
    """(1, F) in {0, 1}, or None where the photo has none."""
    name: str = ""
    """Name of the photo, so that what is drawn for it does not depend on the order of photos."""

    @property
    def nearest_full(self) -> int:
        """Position of the scale nearest to the photo's own size."""
        return min(range(len(self.scales)), key=lambda at: abs(self.scales[at] - 1))


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    name: str
    parameters: Sequence[nn.Parameter]
    rate: Literal["base", "head"]


@dataclass(frozen=True, slots=True)
class StageOutputs:
    """What earlier stages of a multi-stage recipe left: trained methods by stage name."""

    methods: Mapping[str, Method]

    def only(self, method: str) -> Method:
        """Return the one network that `method` goes on from.

        Raises:
            RecipeError: If there is none, or more than one.
        """
        if len(self.methods) != 1:
            named = ", ".join(self.methods) or "none"
            raise RecipeError(
                f"method.name: {method} goes on from one trained network, got {named}; "
                "give its stage 'from: STAGE'"
            )
        return next(iter(self.methods.values()))


class Method(nn.Module, ABC):
    """One paper: its losses while training, its evidence afterwards.

    A new method is one file in `methods` with one direct subclass and a `Config`, and one recipe.
    Implement `losses` and `evidence`; override the rest only where the paper differs from the
    default.
    """

    Config: ClassVar[type[MethodConfig]]
    reads_masks: bool = False
    """Whether `losses` reads `batch.mask`; for the others no mask is even decoded."""
    shares_pixels: bool = False
    """Whether evidence is what each class has of a pixel, in [0, 1], and the rest is background."""

    def __init__(
        self,
        config: MethodConfig,
        backbone: Backbone,
        num_foreground: int,
        refiner: Refiner | None,
        steps: int,
    ) -> None:
        """Keep the parts; subclasses add heads.

        Args:
            config: The method's own section of the recipe.
            backbone: Already carries its weights.
            num_foreground: F, without background.
            refiner: What pseudo-labels are refined with while training, or None.
            steps: Optimiser steps of the whole run, for schedules stated as fractions.
        """
        super().__init__()
        self.backbone = backbone
        self.num_foreground = num_foreground
        self.refiner = refiner
        self.steps = steps
        self.monitor: dict[str, Tensor] = {}
        if config.freeze_norms:
            freeze_loaded_norms(backbone)

    def forward(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Same as `losses`; the door through which a parallel wrapper calls it."""
        return self.losses(batch, step)

    @abstractmethod
    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Compute named scalar losses, already weighted; the engine adds them.

        Values worth watching that are not trained on go, detached, into `self.monitor`.
        """

    @abstractmethod
    def evidence(self, image: Tensor, tags: Tensor | None = None) -> Evidence:
        """Look at (N, 3, H, W) normalised float photos once, at one scale.

        Args:
            image: As `Backbone.normalise` returns it.
            tags: (N, F) for methods that need them while labelling; most ignore them.
        """

    def look(self, views: Views) -> Sequence[Evidence]:
        """Look at one photo at all its scales; (V, ...) evidence per scale.

        Override it where scales are not looked at one by one. Called without gradients, which a
        method that needs them turns on itself.
        """
        return [
            self.evidence(image, None if views.tags is None else views.tags.expand(len(image), -1))
            for image in views.images
        ]

    def accompany(self, photos: TaggedPhotos | None) -> None:
        """Receive the photos of a labelling run, None at its end; most methods need no others."""

    def class_logit(self, image: Tensor) -> Tensor:
        """(N, F) class logits of normalised photos. Override it where `evidence` is expensive."""
        return self.evidence(image).logit

    def classify(self, image: Tensor) -> Tensor:
        """(N, F) class probabilities of normalised photos: the gate `predicted`."""
        return self.class_logit(image).sigmoid()

    def score(self, image: Tensor, tags: Tensor | None = None) -> Tensor:
        """(N, F, H, W) single-scale evidence in [0, 1]; zero for classes absent from `tags`."""
        cam = upsample(self.evidence(image, tags).cam, image.shape[-2:])
        score = normalise_cam(cam.relu())
        return score if tags is None else score * tags[:, :, None, None].to(score.dtype)

    @property
    def has_decoder(self) -> bool:
        """Whether `segmentation` gives logits."""
        return type(self).segmentation is not Method.segmentation

    def segmentation(self, image: Tensor) -> Tensor | None:
        """(N, C, h, w) logits of a decoder at its own grid, background first, of normalised photos.

        None from methods without a decoder, whose masks are cut from `evidence`.
        """
        return None

    def segment(self, image: Tensor) -> Tensor:
        """(N, C, H, W) class probabilities of normalised photos, background first, at one scale.

        From the decoder; without one, a softmax over the usual score of background and `score`.
        """
        logit = self.segmentation(image)
        if logit is None:
            return key_probability(self.score(image).float(), SCORE_OF_BACKGROUND)
        return upsample(logit.float(), image.shape[-2:]).softmax(dim=1)

    def maps(self, image: Tensor) -> Mapping[str, Tensor]:
        """Affinity, attention, ... of normalised photos, for propagation and figures; may be empty.

        `affinity`, where given, is (N, L, L) in [0, 1] over the grid of the last feature map;
        `attention` likewise, its rows sum to 1.
        """
        return {}

    def propagation(self, image: Tensor) -> Propagation | None:
        """Look at one normalised photo for what carries evidence from pixel to pixel.

        None, the default: evidence spreads along the `affinity` of `maps`, where there is one.
        Override it for walks over too many cells for a matrix of all pairs.
        """
        return None

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Loaded weights at the base rate, everything no checkpoint filled at the head rate."""
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

        Either copies weights, or registers a network as a frozen submodule, so that the weights
        file of a run is whole by itself. `train` is called on the whole method afterwards: who
        registers a network also keeps it in evaluation mode.
        """


def labelled_pixels(batch: Batch, method: str) -> Tensor:
    """Return the (N, H, W) masks that a method with `reads_masks` learns from.

    Raises:
        RecipeError: If the photos come without.
    """
    if batch.mask is None:
        raise RecipeError(f"method.name: {method} learns from masks; give its stage 'labels:'")
    return batch.mask


@contextmanager
def labelling(backbone: Backbone, precision: LabelPrecision, device_type: str) -> Iterator[None]:
    """Look at photos for labels in the midst of training.

    No gradient, no dropped paths, no batch statistics from rescaled views; in bfloat16 if
    `precision` says so. The backbone's mode is put back.
    """
    with evaluating(backbone), torch.no_grad(), label_autocast(precision, device_type):
        yield


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode; afterwards every part has the mode it had."""
    modes = [(part, part.training) for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def freeze_loaded_norms(backbone: Backbone) -> None:
    """Stop training of normalisation parameters that a checkpoint filled: no gradient, no state.

    Source:
        methods specification 2.9 and R20: parameters whose name holds "norm" have lr 0 there, which
        is the same for the Mix Transformer.
    """
    for place, layer in backbone.named_modules():
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            for name, parameter in layer.named_parameters(prefix=place):
                if name in backbone.loaded:
                    parameter.requires_grad_(False)


def build_method(recipe: Recipe, earlier: Mapping[str, Method] | None = None) -> Method:
    """Build the network a recipe describes, with its weights, on the CPU.

    Args:
        recipe: Resolved, classes included.
        earlier: Trained networks of the stages in `recipe.earlier`. None builds these without
            weights, for a network whose own weights file holds all that `setup` took from them.

    Raises:
        UnknownPluginError: If a name of the recipe is no plug-in.
        WeightsError: If the backbone's weights cannot be used.
        RecipeError: If the method needs networks of earlier stages, and the recipe has none.
    """
    backbone = plugins.load("models.backbones", recipe.backbone.name)(recipe.backbone)
    refiner = build_refiner(recipe)
    kind: type[Method] = plugins.load("methods", recipe.method.name)
    method = kind(recipe.method, backbone, recipe.num_foreground, refiner, recipe.optim.steps)
    if earlier is None:
        earlier = {name: build_method(past.blank()) for name, past in recipe.earlier.items()}
    method.setup(StageOutputs(methods=earlier))
    return method


def build_refiner(recipe: Recipe) -> Refiner | None:
    """Build the recipe's refiner, or None where it names none."""
    if recipe.refiner is None:
        return None
    refiner: Refiner = plugins.load("refiners", recipe.refiner.name)(recipe.refiner)
    return refiner
