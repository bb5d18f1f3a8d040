"""The schema of a recipe: one frozen model per section, with ranges, defaults and help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationInfo, field_validator

StepsOrFraction = Annotated[float, Field(ge=0)]
"""A point in training: below 1 a fraction of all steps, from 1 on a number of steps."""
Fraction = Annotated[float, Field(ge=0, le=1)]


def resolve_steps(span: float, total: int) -> int:
    """Turn a Span into a step number: 0.11 of 20,000 is 2,200; 2000 stays 2,000."""
    return round(span * total) if span < 1 else round(span)


class Config(BaseModel):
    """Base of every section: frozen, unknown keys refused, attribute docstrings are the help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataConfig(Config):
    """What every data source understands; a source's own Config adds to it."""

    name: str
    """Data source: a file of the folder `data`."""
    root: Path | None = None
    """Folder of the data set."""
    classes: tuple[str, ...] = ()
    """Classes to learn, in the order of mask values 1..F. Empty: all that the tags name, sorted."""
    crop_px: int = Field(default=320, ge=32, multiple_of=32)
    """Side of the square training crop in pixels."""
    scale_min: PositiveFloat = 0.5
    """Smallest random enlargement factor in training."""
    scale_max: PositiveFloat = 2.0
    """Largest random enlargement factor in training."""
    long_side_min_px: int | None = Field(default=None, ge=1)
    """Shortest random long side of an image in training; none: images are enlarged by a factor."""
    long_side_max_px: int | None = Field(default=None, ge=1, validate_default=True)
    """Longest one; both are set in place of `scale_min` and `scale_max`, or neither."""
    flip: Fraction = 0.5
    """Share of training images that are mirrored."""
    jitter: Fraction = 0.0
    """Share of training images whose colors are changed at random."""
    jitter_brightness: Fraction = 0.4
    """Brightness is multiplied by 1 - this to 1 + this."""
    jitter_contrast: Fraction = 0.4
    """Contrast likewise."""
    jitter_saturation: Fraction = 0.4
    """Saturation likewise."""
    jitter_hue: float = Field(default=0.1, ge=0, le=0.5)
    """Hue is turned by up to this share of the color circle, either way."""
    strict: bool = False
    """Refuse a data set with unreadable images; otherwise they are skipped and counted."""
    labels: Path | None = None
    """Folder of masks to learn from, as `tag2mask label` writes it; none: the data set's own. Read
    by methods that learn from masks."""

    @field_validator("long_side_max_px")
    @classmethod
    def _fits_the_shortest(cls, longest: int | None, info: ValidationInfo) -> int | None:
        """The two long sides go together, in order."""
        shortest = info.data.get("long_side_min_px")
        if (longest is None) != (shortest is None):
            raise ValueError("set both long_side_min_px and long_side_max_px, or neither")
        if longest is not None and shortest is not None and longest < shortest:
            raise ValueError(f"is less than long_side_min_px, {shortest}")
        return longest


class BackboneConfig(Config):
    """What every backbone understands."""

    name: str
    """Backbone: a file of the folder `models/backbones`."""
    weights: str | None = None
    """Pretrained weights: a local path or a hub id; `none` trains from scratch."""

    def resolved(self) -> Self:
        """Return the settings with all that now stands in files beside the weights.

        A run's own recipe is resolved, so that its network can be built without those files.

        Raises:
            WeightsError: If such a file is needed and missing.
        """
        return self


class RefinerConfig(Config):
    """What every refiner understands."""

    name: str
    """Refiner: a file of the folder `refiners`."""


class MethodConfig(Config):
    """What every method understands."""

    name: str
    """Method: a file of the folder `methods`."""
    freeze_norms: bool = True
    """Freeze normalization layers that came with pretrained weights."""


class OptimConfig(Config):
    """Optimizer and schedule (Specification 2.9)."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw; or sgd, as the published recipes for convolutional networks."""
    lr: PositiveFloat = 6.0e-5
    """Learning rate of pretrained weights."""
    head_lr: PositiveFloat = 6.0e-4
    """Learning rate of everything that no checkpoint filled."""
    bias_lr_factor: PositiveFloat = 1.0
    """Factor on the learning rate of biases."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay: beside the step with adamw, part of the gradient with sgd."""
    decay_biases: bool = True
    """Whether biases have weight decay, too."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW first-moment decay."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW second-moment decay."""
    steps: int = Field(default=18_000, ge=1)
    """Optimizer steps in total."""
    batch_size: int = Field(default=8, ge=1)
    """Images per step and process."""
    late_batch_size: int | None = Field(default=None, ge=1)
    """Images per step and process from `late_from` on; none: as before."""
    late_from: StepsOrFraction = 0.5
    """Where `late_batch_size` begins: a fraction of all steps, or steps."""
    accumulate_steps: int = Field(default=1, ge=1)
    """Batches whose gradients are added before one optimizer step."""
    warmup: StepsOrFraction = 0.075
    """Learning-rate warm-up: a fraction of all steps, or steps."""
    warmup_ratio: PositiveFloat = 1.0e-6
    """First learning rate as a share of the full one."""
    power: PositiveFloat = 1.0
    """Exponent of the polynomial decay."""
    decay_steps: int | None = Field(default=None, ge=1)
    """Steps after which the decay reaches 0; more than `steps` ends it early. none: `steps`."""
    max_grad_norm: PositiveFloat | None = None
    """Largest gradient norm; none: no clipping."""


class ConfidentConfig(Config):
    """How a label stage makes confident pseudo-labels."""

    name: str
    """Method whose way of making them is used: irn or psa."""
    foreground_threshold: PositiveFloat | None = None
    """Strength of background that confident foreground must still beat: a background score with
    irn, a power of (1 - CAM) with psa. None: the method's, 0.30 (irn) or 4 (psa)."""
    background_threshold: PositiveFloat | None = None
    """Strength of background that confident background must still beat. None: the method's, 0.05
    (irn) or 32 (psa)."""


class PredictConfig(Config):
    """From a trained network to masks (Specification 2.11 and R18)."""

    protocol: str = "auto"
    """Method whose inference protocol is used: cam makes masks from the CAM, afa from a decoder,
    onestage from pixel shares. auto: the method's own."""
    scales: tuple[PositiveFloat, ...] | None = Field(default=None, min_length=1)
    """Image scales. The CAM is added up over them; decoder scores take the largest. None: the
    protocol's."""
    flip: bool = True
    """Also run on the flipped image."""
    long_side_px: int | None = Field(default=None, ge=0)
    """Resize images to this long side first; 0 keeps their size. None: the protocol's."""
    background: Fraction | None = None
    """Background score beside the normalized CAM; larger gives smaller objects. None: 0.45, or
    0.35 with propagate."""
    class_threshold: Fraction = 0.5
    """Class probability above which a class of an untagged image is used; decoders ignore it."""
    fallback: bool = False
    """Keep the most probable class if none passes the threshold, for images that surely show one."""
    max_side_px: int | None = Field(default=1024, ge=32)
    """Shrink larger images to this long side for the network; masks keep the image's size."""
    propagate: bool = False
    """Propagate the CAM along the learned affinity before refining."""
    refine: bool | None = None
    """Apply the recipe's refiner. None: the protocol's; true if a command names a refiner."""
    crf: bool = False
    """Finish with a dense CRF at the image's size."""
    confident: ConfidentConfig | None = None
    """Write confident pixels only, as labels for irn or psa; all others become 255."""

    @property
    def background_score(self) -> float:
        """Background score (Specification R18; 2.7 with propagation)."""
        return self.background if self.background is not None else 0.35 if self.propagate else 0.45


class RunConfig(Config):
    """How a run is carried out; none of it changes what is learned, but seed and precision."""

    seed: int = Field(default=1, ge=0)
    """Seed of weights, augmentation and sampling."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the training step."""
    workers: int = Field(default=1, ge=0)
    """Loader processes per training process."""
    log_every: int = Field(default=20, ge=1)
    """Steps between log lines."""
    evaluate_every: StepsOrFraction = 0.25
    """Steps (or fraction) between evaluations; 0: only at the end."""
    evaluate_images: int = Field(default=100, ge=1)
    """Most images per evaluation during training."""
    save_every: StepsOrFraction = 0.25
    """Steps (or fraction) between full-state checkpoints; the end always has one."""
    samples: int = Field(default=4, ge=0)
    """Sample strips (image, cam, refined, pseudo-label, prediction) written at each evaluation."""
