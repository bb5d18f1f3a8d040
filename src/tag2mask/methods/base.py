"""What a method promises: a training objective and a way to score pixels.

No files, no devices, no optimizer.
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
from tag2mask.config.recipe import Recipe
from tag2mask.config.schema import MethodConfig
from tag2mask.errors import RecipeError
from tag2mask.functional.cam import normalize_cam, upsample
from tag2mask.functional.precision import LabelPrecision, label_autocast
from tag2mask.functional.pseudo_label import probs_with_background
from tag2mask.models.base import Backbone
from tag2mask.refiners.base import Refiner
from tag2mask.types import Batch, DatasetView

BACKGROUND_SCORE = 0.45
"""Score of background beside normalized evidence (Specification 2.3)."""


Propagation = Callable[[Tensor], Tensor]
"""Spreads (1, K, h, w) evidence of chosen classes in [0, 1] over one image: (1, K, h', w') evidence
in [0, 1], or (1, 1 + K, h', w') non-negative scores, background first, the largest wins."""


class CamOutput(NamedTuple):
    """What one view of an image says about the classes."""

    logits: Tensor
    """(N, F) image-level class logits."""
    cam: Tensor
    """(N, F, h, w) raw signed class evidence at the network's grid; test-time adds it over scales,
    then normalizes."""


class ScaledViews(NamedTuple):
    """One image as test time looks at it: every scale, mirror images beside."""

    images: Sequence[Tensor]
    """Per scale (V, 3, h, w) normalized; V is 2 where the mirrored image is looked at too."""
    scales: Sequence[float]
    """Factors of the image's working size."""
    tags: Tensor | None = None
    """(1, F) in {0, 1}, or None where the image has none."""
    name: str = ""
    """Name of the image, so that what is drawn for it does not depend on the order of images."""

    @property
    def nearest_full(self) -> int:
        """Position of the scale nearest to the image's own size."""
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
    Implement `losses` and `compute_cam`; override the rest only where the paper differs from the
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
            steps: Optimizer steps of the whole run, for schedules stated as fractions.
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
    def compute_cam(self, image: Tensor, tags: Tensor | None = None) -> CamOutput:
        """Look at (N, 3, H, W) normalized float images once, at one scale.

        Args:
            image: As `Backbone.normalize` returns it.
            tags: (N, F) for methods that need them while labeling; most ignore them.
        """

    def compute_multi_scale_cam(self, views: ScaledViews) -> Sequence[CamOutput]:
        """Look at one image at all its scales; (V, ...) evidence per scale.

        Override it where scales are not looked at one by one. Called without gradients, which a
        method that needs them turns on itself.
        """
        return [
            self.compute_cam(
                image, None if views.tags is None else views.tags.expand(len(image), -1)
            )
            for image in views.images
        ]

    def set_dataset(self, images: DatasetView | None) -> None:
        """Receive the images of a labeling run, None at its end; most methods need no others."""

    def class_logits(self, image: Tensor) -> Tensor:
        """(N, F) class logits of normalized images. Override it where `compute_cam` is expensive."""
        return self.compute_cam(image).logits

    def classify(self, image: Tensor) -> Tensor:
        """(N, F) class probabilities of normalized images: the class source `classifier`."""
        return self.class_logits(image).sigmoid()

    def score(self, image: Tensor, tags: Tensor | None = None) -> Tensor:
        """(N, F, H, W) single-scale evidence in [0, 1]; zero for classes absent from `tags`."""
        cam = upsample(self.compute_cam(image, tags).cam, image.shape[-2:])
        score = normalize_cam(cam.relu())
        return score if tags is None else score * tags[:, :, None, None].to(score.dtype)

    @property
    def has_decoder(self) -> bool:
        """Whether `segmentation` gives logits."""
        return type(self).segmentation is not Method.segmentation

    def segmentation(self, image: Tensor) -> Tensor | None:
        """(N, C, h, w) logits of a decoder at its own grid, background first, of normalized images.

        None from methods without a decoder, whose masks are cut from `compute_cam`.
        """
        return None

    def segment(self, image: Tensor) -> Tensor:
        """(N, C, H, W) class probabilities of normalized images, background first, at one scale.

        From the decoder; without one, a softmax over the usual score of background and `score`.
        """
        logits = self.segmentation(image)
        if logits is None:
            return probs_with_background(self.score(image).float(), BACKGROUND_SCORE)
        return upsample(logits.float(), image.shape[-2:]).softmax(dim=1)

    def maps(self, image: Tensor) -> Mapping[str, Tensor]:
        """Affinity, attention, ... of normalized images, for propagation and figures; may be empty.

        `affinity`, where given, is (N, L, L) in [0, 1] over the grid of the last feature map;
        `attention` likewise, its rows sum to 1.
        """
        return {}

    def propagation(self, image: Tensor) -> Propagation | None:
        """Look at one normalized image for what carries evidence from pixel to pixel.

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


def labeled_pixels(batch: Batch, method: str) -> Tensor:
    """Return the (N, H, W) masks that a method with `reads_masks` learns from.

    Raises:
        RecipeError: If the images come without.
    """
    if batch.mask is None:
        raise RecipeError(f"method.name: {method} learns from masks; give its stage 'labels:'")
    return batch.mask


@contextmanager
def labeling(backbone: Backbone, precision: LabelPrecision, device_type: str) -> Iterator[None]:
    """Look at images for labels in the midst of training.

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
    """Stop training of normalization parameters that a checkpoint filled: no gradient, no state.

    Source:
        Specification 2.9 and R20: parameters whose name holds "norm" have lr 0 there, which
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
