"""Define the schema of a recipe: per section a frozen model with ranges, defaults and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationInfo, field_validator

MOST_STEPS = 10**9
MOST_IMAGES = 10**9
LONGEST_SIDE_PX = 2**16
LARGEST_BATCH = 2**16
MOST_IMAGES_PER_PASS = 256


class PointInTraining:
    """Marks a key as a point in training, which moves when the training gets longer or shorter."""


StepsOrFraction = Annotated[float, Field(ge=0, le=MOST_STEPS), PointInTraining()]
"""A point in training: a fraction of all steps below 1, a number of steps from 1 on."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0.05, le=16)]
"""Factor by which an image is resized."""
Scales = Annotated[tuple[Scale, ...], Field(min_length=1, max_length=16)]
Width = Annotated[int, Field(ge=1, le=8192)]
"""Number of channels of a layer."""
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Dilation = Annotated[int, Field(ge=1, le=256)]


def resolve_steps(point: float, total: int) -> int:
    """Turn a point in training into a step number: 0.11 of 20,000 is 2,200; 2000 stays 2,000.

    Args:
        point: Fraction of all steps if below 1, else a number of steps.
        total: All steps of the training.
    """
    return round(point * total) if point < 1 else round(point)


class Config(BaseModel):
    """Base of every section: frozen, without unknown keys; docstrings of keys are the help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class DataConfig(Config):
    """Keys of every data source; a source's own Config adds to them."""

    name: str
    """Data source: a file of the folder `data`."""
    root: Path | None = None
    """Folder of the data set."""
    classes: tuple[str, ...] = ()
    """Classes to learn, in the order of mask values 1 to F; empty: all tags, sorted."""
    crop_px: int = Field(default=320, ge=32, le=8192, multiple_of=32)
    """Side of the square training crop in pixels. Larger: more context, more memory and time."""
    scale_min: Scale = 0.5
    """Smallest random resize factor in training. Smaller: objects also appear smaller."""
    scale_max: Scale = 2.0
    """Largest random resize factor in training. Larger: crops show smaller parts of an image."""
    long_side_min_px: int | None = Field(default=None, ge=1, le=LONGEST_SIDE_PX)
    """Smallest random long side of a training image in pixels; none: `scale_min` applies."""
    long_side_max_px: int | None = Field(
        default=None, ge=1, le=LONGEST_SIDE_PX, validate_default=True
    )
    """Largest random long side of a training image in pixels; none: `scale_max` applies. Set both
    long sides or neither."""
    padding: Literal["black", "mean"] = "black"
    """Color around a training image that is smaller than the crop. black: as in AFA and RML; mean:
    the color that is 0 after the backbone's normalization, as in PSA, IRN and their followers."""
    flip: Fraction = 0.5
    """Fraction of training images that are flipped left to right."""
    jitter: Fraction = 0.0
    """Fraction of training images with random color jitter. Larger: colors count less."""
    jitter_brightness: Fraction = 0.4
    """Strength of the brightness jitter: a random factor from 1 - this to 1 + this."""
    jitter_contrast: Fraction = 0.4
    """Strength of the contrast jitter: a random factor from 1 - this to 1 + this."""
    jitter_saturation: Fraction = 0.4
    """Strength of the saturation jitter: a random factor from 1 - this to 1 + this."""
    jitter_hue: float = Field(default=0.1, ge=0, le=0.5)
    """Strength of the hue jitter: the largest shift, as a fraction of the color circle."""
    strict: bool = False
    """Reject a data set with unreadable images; otherwise they are skipped and counted."""
    value_range: tuple[float, float] | None = None
    """Values of 16-bit pixels that become black and white: `0,4095` for 12 bits, so that all images
    have one scale. none: the range of each image, without its darkest and brightest thousandth."""
    labels: Path | None = None
    """Folder of masks that `tag2mask label` wrote, to train on; none: the data set's own masks.
    Only methods that learn from masks read it."""
    true_masks: Literal["score", "train"] = "score"
    """Use of the training images' true masks. score: for scores, and for methods that learn from
    masks alone if every image has one; train: learn from them, also if only some images have one.
    Masks of held-out images are always for scores."""
    true_mask_share: float = Field(default=0.25, gt=0, le=1)
    """Share of each batch that `true_masks: train` draws from the images with a true mask, at least
    one image. Larger: masks count more against tags, and few masks are soon learned by heart."""

    @field_validator("value_range")
    @classmethod
    def _check_value_range(
        cls, value_range: tuple[float, float] | None
    ) -> tuple[float, float] | None:
        """Require the smaller value first."""
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError("the first value must be below the second")
        return value_range

    @field_validator("long_side_max_px")
    @classmethod
    def _check_long_sides(cls, largest: int | None, info: ValidationInfo) -> int | None:
        """Require both long sides or neither, in order."""
        smallest = info.data.get("long_side_min_px")
        if (largest is None) != (smallest is None):
            raise ValueError("set both long_side_min_px and long_side_max_px, or neither")
        if largest is not None and smallest is not None and largest < smallest:
            raise ValueError(f"is less than long_side_min_px, {smallest}")
        return largest


class BackboneConfig(Config):
    """Keys of every backbone."""

    name: str
    """Backbone: a file of the folder `models/backbones`."""
    weights: str | None = None
    """Pretrained weights: a file, a folder or a Hugging Face id, with or without its revision
    (`org/name@commit`); none: train from scratch."""

    def resolved(self) -> Self:
        """Return the settings, completed by those in files beside the weights.

        A run keeps its recipe resolved, so its network can be built without those files.

        Raises:
            WeightsError: If a needed file is missing.
        """
        return self


class RefinerConfig(Config):
    """Keys of every refiner."""

    name: str
    """Refiner: a file of the folder `refiners`."""


class MethodConfig(Config):
    """Keys of every method."""

    name: str
    """Method: a file of the folder `methods`."""
    freeze_norms: bool = True
    """Keep the normalization layers of pretrained weights fixed during training."""
    true_mask_weight: float = Field(default=1.0, ge=0)
    """Weight of the pixel loss on true masks (`data.true_masks: train`). Methods that learn from
    masks alone ignore it: there, true masks replace pseudo-labels."""


class OptimConfig(Config):
    """Optimizer and schedule (Specification 2.9)."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw for transformers; sgd as in the published recipes for convolutional networks."""
    lr: PositiveFloat = 6.0e-5
    """Learning rate of pretrained weights. Larger: faster, less stable."""
    head_lr: PositiveFloat = 6.0e-4
    """Learning rate of all weights that were not pretrained."""
    bias_lr_factor: PositiveFloat = 1.0
    """Factor by which the learning rate of biases is multiplied."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay: decoupled with adamw, in the gradient with sgd. Larger: smaller weights."""
    decay_biases: bool = True
    """Apply weight decay to biases as well."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd. Larger: each step remembers more of the earlier gradients."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the first moment of adamw."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the second moment of adamw."""
    steps: int = Field(default=18_000, ge=1, le=MOST_STEPS)
    """Total number of optimizer steps. Training time grows in proportion."""
    batch_size: int = Field(default=8, ge=1, le=LARGEST_BATCH)
    """Images per batch and process. Larger: more memory, steadier gradients."""
    late_batch_size: int | None = Field(default=None, ge=1, le=LARGEST_BATCH)
    """Images per batch and process from `late_from` on; none: `batch_size` throughout."""
    late_from: StepsOrFraction = 0.5
    """Start of `late_batch_size`: a fraction of all steps below 1, else a number of steps."""
    accumulate_steps: int = Field(default=1, ge=1, le=LARGEST_BATCH)
    """Batches whose gradients are added up per optimizer step. Raise it when memory is short."""
    warmup: StepsOrFraction = 0.075
    """Length of the learning-rate warm-up: a fraction of all steps below 1, else steps."""
    warmup_ratio: PositiveFloat = 1.0e-6
    """First learning rate of the warm-up as a fraction of the full one."""
    power: PositiveFloat = 1.0
    """Exponent of the polynomial decay. Larger: the learning rate falls earlier."""
    decay_steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Steps after which the learning rate reaches 0; none: `steps`. Larger: slower decay."""
    max_grad_norm: PositiveFloat | None = None
    """Gradients of a larger norm are scaled down to this norm; none: no clipping."""


class ConfidentConfig(Config):
    """How a label stage makes confident pseudo-labels."""

    name: str
    """Method whose way of making them is used: irn or psa."""
    foreground_threshold: PositiveFloat | None = None
    """Background that confident foreground must still beat: a background score (irn), or a power
    of one minus the largest CAM (psa). none: 0.30 (irn), 4 (psa)."""
    background_threshold: PositiveFloat | None = None
    """Background that confident background must still win against, in the same units. none: 0.05
    (irn), 32 (psa)."""


NO_BACKGROUND = -100.0
"""Background score that no CAM in [0, 1] falls below; its softmax beside a CAM is 0 in float32."""


class PredictConfig(Config):
    """From a trained network to masks (Specification 2.11 and R18)."""

    protocol: str = "auto"
    """Method whose inference protocol is used: cam makes masks from class activation maps, afa from
    a decoder, onestage from shares of classes and background. auto: the method's own."""
    scales: Scales | None = None
    """Image scales; how their outputs are combined depends on the protocol. More scales: slower,
    often more complete objects. none: those of the protocol."""
    flip: bool = True
    """Also run the network on the flipped image; doubles the time."""
    long_side_px: int | None = Field(default=None, ge=0, le=LONGEST_SIDE_PX)
    """Resize images to this long side in pixels first; 0: original size; none: that of the
    protocol, 0 or 512."""
    background: Fraction | None = None
    """Background score beside normalized class activation maps. Larger: smaller objects. none:
    0.45, or 0.35 with propagate."""
    background_rule: Literal["fixed", "otsu"] = "fixed"
    """Where the background score comes from. fixed: `background`, as in the papers; otsu: from the
    class activation maps of each image, the score that best splits its pixels into two groups."""
    has_background: bool = True
    """Whether a pixel may show none of the classes. false: each pixel belongs to one of the classes
    of its image (tissue, land cover), and background scores do not matter."""
    class_threshold: Fraction = 0.5
    """Class probability above which the classifier selects a class; decoders ignore it. Larger:
    fewer classes."""
    fallback: bool = False
    """Select the most probable class when none passes the threshold; decoders ignore it."""
    max_side_px: int | None = Field(default=1024, ge=32, le=LONGEST_SIDE_PX)
    """Shrink larger images to this long side in pixels for the network; masks keep the size of the
    image. Smaller: less memory, coarser masks. none: never shrink."""
    tile_px: int | None = Field(default=8192, ge=64, le=LONGEST_SIDE_PX)
    """Cut images with a longer side into overlapping square tiles of this side in pixels. Each tile
    is shrunk to `max_side_px` as an image of its size would be, so smaller tiles give finer masks;
    objects that are larger than a tile get worse. none: never cut."""
    tile_overlap: float = Field(default=0.25, ge=0, le=0.5)
    """Smallest share of a tile's side that its neighbor covers. Larger: slower, smoother seams."""
    propagate: bool = False
    """Propagate class activation maps along the learned affinity before refining."""
    refine: bool | None = None
    """Apply the recipe's refiner; none: as the protocol does, or if a command names one."""
    crf: bool = False
    """Finish with a dense CRF at the size of the image; slow."""
    confident: ConfidentConfig | None = None
    """Write confident pseudo-labels only, to train irn or psa; all other pixels become 255."""
    min_confidence: Fraction = 0.0
    """Smallest probability of a pixel's class; less probable pixels become 255. For masks to train
    on, behind a dense CRF or from a decoder. Larger: fewer labeled pixels."""
    batch_size: int | None = Field(default=None, ge=1, le=MOST_IMAGES_PER_PASS)
    """Images of like size that share a forward pass when masks of many images are written. Masks
    stay the same up to rounding; fewer than asked for share a pass where they are large, and none
    where a method works on each image or with propagate. Larger: more memory; faster on a GPU.
    none: 1 on a CPU, 8 on a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the network; CAM and refiners stay in fp32. auto: bf16 where the hardware has
    instructions for it, else fp32."""

    @property
    def background_score(self) -> float:
        """Background score (Specification R18; 2.7 if the maps are propagated)."""
        if not self.has_background:
            return NO_BACKGROUND
        return self.background if self.background is not None else 0.35 if self.propagate else 0.45


class RunConfig(Config):
    """How a run is carried out. Only seed, precision and first weights change what it learns."""

    seed: Seed = 1
    """Random seed of weights, augmentation and sampling."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the training step; bf16 is faster where the hardware supports it."""
    workers: int = Field(default=1, ge=0, le=1024)
    """Loader processes per training process. Larger: less waiting for images, more memory."""
    log_every: int = Field(default=20, ge=1, le=MOST_STEPS)
    """Steps between lines of the log."""
    evaluate_every: StepsOrFraction = 0.25
    """Interval of evaluations: a fraction of all steps below 1, else steps; 0: only at the end."""
    evaluate_images: int = Field(default=100, ge=1, le=MOST_IMAGES)
    """Largest number of images in an evaluation during training."""
    best: Literal["score", "last"] = "score"
    """Which weights become the best ones. score: those with the highest score on held-out images;
    last: the last, for held-out images whose score is reported."""
    save_every: StepsOrFraction = 0.25
    """Interval of full-state checkpoints: a fraction of all steps below 1, else steps; the end
    always has one."""
    samples: int = Field(default=4, ge=0, le=1000)
    """Sample strips (image, CAM, refined CAM, pseudo-label, prediction) per evaluation."""
    weights_from: str | None = None
    """Run whose weights training starts from, a folder or a Hugging Face id; classes of equal name
    keep what they learned. none: the backbone's pretrained weights."""
    trackers: tuple[Literal["wandb", "trackio", "mlflow"], ...] = ()
    """Experiment trackers that get the log as well; each needs the extra of its name."""
    estimate: bool = True
    """Print time and memory before the first step, measured on a few steps of a copy."""
