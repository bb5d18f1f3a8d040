"""Recipes: YAML in, frozen checked models out. The one schema of every setting.

A recipe names its plug-ins (`method: {name: rml}`); each plug-in's own `Config` checks its section,
so a new plug-in brings its keys with it. Every fault becomes one line, with a hint for a mistyped
key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)

from tag2mask import plugins
from tag2mask.errors import RecipeError, did_you_mean
from tag2mask.faults import fault_lines
from tag2mask.stages import StageConfig, overlaid, stage_faults

RECIPE_FOLDER = Path(__file__).parent / "recipes"
SCHEMA_VERSION: Literal[1] = 1
PLUGIN_SECTIONS = {
    "data": "data",
    "backbone": "models.backbones",
    "method": "methods",
    "refiner": "refiners",
}
"""Section of a recipe -> plug-in folder whose class checks it."""

Span = Annotated[float, Field(ge=0)]
"""A point in training: below 1 a fraction of all steps, from 1 on a number of steps."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def span_steps(span: float, total: int) -> int:
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
    scale_min: Positive = 0.5
    """Smallest random enlargement factor in training."""
    scale_max: Positive = 2.0
    """Largest random enlargement factor in training."""
    long_side_min_px: int | None = Field(default=None, ge=1)
    """Shortest random long side of a photo in training; none: photos are enlarged by a factor."""
    long_side_max_px: int | None = Field(default=None, ge=1, validate_default=True)
    """Longest one; both are set in place of `scale_min` and `scale_max`, or neither."""
    flip: Fraction = 0.5
    """Share of training photos that are mirrored."""
    jitter: Fraction = 0.0
    """Share of training photos whose colours are changed at random."""
    jitter_brightness: Fraction = 0.4
    """Brightness is multiplied by 1 - this to 1 + this."""
    jitter_contrast: Fraction = 0.4
    """Contrast likewise."""
    jitter_saturation: Fraction = 0.4
    """Saturation likewise."""
    jitter_hue: float = Field(default=0.1, ge=0, le=0.5)
    """Hue is turned by up to this share of the colour circle, either way."""
    strict: bool = False
    """Refuse a data set with unreadable photos; otherwise they are skipped and counted."""
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


class RefinerConfig(Config):
    """What every refiner understands."""

    name: str
    """Refiner: a file of the folder `refiners`."""


class MethodConfig(Config):
    """What every method understands."""

    name: str
    """Method: a file of the folder `methods`."""
    freeze_norms: bool = True
    """Freeze normalisation layers that came with pretrained weights."""


class OptimConfig(Config):
    """Optimiser and schedule (methods specification 2.9)."""

    optimiser: Literal["adamw", "sgd"] = "adamw"
    """adamw; or sgd, as the published recipes for convolutional networks."""
    lr: Positive = 6.0e-5
    """Learning rate of pretrained weights."""
    head_lr: Positive = 6.0e-4
    """Learning rate of everything that no checkpoint filled."""
    bias_rate: Positive = 1.0
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
    """Optimiser steps in total."""
    batch: int = Field(default=8, ge=1)
    """Photos per step and process."""
    late_batch: int | None = Field(default=None, ge=1)
    """Photos per step and process from `late_from` on; none: as before."""
    late_from: Span = 0.5
    """Where `late_batch` begins: a fraction of all steps, or steps."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are added before one optimiser step."""
    warmup: Span = 0.075
    """Learning-rate warm-up: a fraction of all steps, or steps."""
    warmup_ratio: Positive = 1.0e-6
    """First learning rate as a share of the full one."""
    power: Positive = 1.0
    """Exponent of the polynomial decay."""
    decay_steps: int | None = Field(default=None, ge=1)
    """Steps after which the decay reaches 0; more than `steps` ends it early. none: `steps`."""
    clip_norm: Positive | None = None
    """Largest gradient norm; none: no clipping."""


class PredictConfig(Config):
    """From a trained network to masks (methods specification 2.11 and R18)."""

    protocol: Literal["auto", "rml", "afa"] = "auto"
    """rml: masks from class evidence; afa: from a decoder's scores; auto: afa if there is one."""
    scales: tuple[Positive, ...] | None = Field(default=None, min_length=1)
    """Image scales, added up (rml) or the largest taken (afa); scale 1 also gives the class
    probabilities. none: the protocol's, 1.0 0.5 1.5 or 1.0 0.5 0.75."""
    flip: bool = True
    """Also look at the mirrored photo."""
    long_side_px: int | None = Field(default=None, ge=0)
    """Resize photos to this long side first; 0: original size; none: the protocol's, 0 or 512."""
    background: Fraction = 0.45
    """Score of background against the normalised evidence; larger gives smaller objects (rml)."""
    class_threshold: Fraction = 0.5
    """Class probability from which a class is used under the gate `predicted` (rml)."""
    fallback: bool = False
    """Keep the likeliest class when none passes, for photos that surely show one (rml)."""
    max_side_px: int | None = Field(default=1024, ge=32)
    """Shrink larger photos to this long side while looking at them; masks keep the photo's size."""
    propagate: bool = False
    """Spread evidence by the learned affinity before refining (rml)."""
    refine: bool | None = None
    """Apply the recipe's refiner. none: with rml, and when a command names a refiner."""
    crf: bool = False
    """Finish with a dense CRF at the photo's size."""
    confident: Literal["irn", "psa"] | None = None
    """Write sure pixels alone, as labels for irn or psa; the rest becomes 255. Evidence is cut
    against a strict and a lenient background, each through the refiner. irn: two scores; psa: two
    powers of what the evidence leaves."""
    confident_cuts: tuple[Positive, Positive] | None = None
    """Strict and lenient cut. none: scores 0.30 0.05 (irn), powers 4 32 (psa)."""


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
    evaluate_every: Span = 0.25
    """Steps (or fraction) between evaluations; 0: only at the end."""
    evaluate_images: int = Field(default=100, ge=1)
    """Most photos per evaluation during training."""
    save_every: Span = 0.25
    """Steps (or fraction) between full-state checkpoints; the end always has one."""
    samples: int = Field(default=4, ge=0)
    """Sample strips (photo, cam, refined, pseudo-label, prediction) written at each evaluation."""


class Recipe(Config):
    """One training stage, whole, or the stages of a pipeline and what they have in common.

    What `recipe.yaml` of a run holds. The last two sections are written by the pipeline into the
    recipes of its stages.
    """

    version: Literal[1] = SCHEMA_VERSION
    """Schema version."""
    data: SerializeAsAny[DataConfig]
    backbone: SerializeAsAny[BackboneConfig]
    method: SerializeAsAny[MethodConfig]
    refiner: SerializeAsAny[RefinerConfig] | None = None
    optim: OptimConfig = OptimConfig()
    predict: PredictConfig = PredictConfig()
    run: RunConfig = RunConfig()
    stages: dict[str, StageConfig] = {}
    """Stages in order, each in a folder of its own; none: the recipe is one stage."""
    earlier: dict[str, SerializeAsAny[Recipe]] = {}
    """Resolved recipes of the stages whose networks this one goes on from."""
    inputs: dict[str, str] = {}
    """Fingerprints of what this stage was made from, by stage."""

    @property
    def num_foreground(self) -> int:
        """F, the number of classes without background."""
        return len(self.data.classes)

    def with_classes(self, classes: Sequence[str]) -> Recipe:
        """Return the recipe with its class list filled in from the data."""
        return self.model_copy(
            update={"data": self.data.model_copy(update={"classes": tuple(classes)})}
        )

    def blank(self) -> Recipe:
        """Return the recipe for a network that its own run's weights file will fill."""
        bare = self.backbone.model_copy(update={"weights": "none"})
        return self.model_copy(update={"backbone": bare})

    def plain(self) -> dict[str, Any]:
        """Return the recipe as plain values that `parse_recipe` reads back to an equal recipe."""
        values = self.model_dump(mode="json", exclude={"stages", "earlier", "inputs"})
        if self.stages:
            values["stages"] = {
                name: stage.model_dump(mode="json", by_alias=True, exclude_unset=True)
                for name, stage in self.stages.items()
            }
        if self.earlier:
            values["earlier"] = {name: recipe.plain() for name, recipe in self.earlier.items()}
        if self.inputs:
            values["inputs"] = dict(self.inputs)
        return values

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML that `load_recipe` reads back to an equal recipe."""
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True)


def recipe_type(raw: Mapping[str, Any], where: str = "recipe", prefix: str = "") -> type[Recipe]:
    """Build the Recipe model whose plug-in sections are checked by the named plug-ins' own Configs.

    Raises:
        RecipeError: If a section is missing, is no mapping or names no plug-in.
    """
    fields: dict[str, Any] = {}
    for section, folder in PLUGIN_SECTIONS.items():
        content = raw.get(section)
        if content is None and section == "refiner":
            continue
        if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
            known = ", ".join(plugins.available(folder))
            raise RecipeError(
                f"{where}: {prefix}{section}: needs a mapping with 'name' (one of {known})"
            )
        fields[section] = (plugins.load(folder, content["name"]).Config, ...)
    return create_model("Recipe", __base__=Recipe, **fields)


def parse_recipe(raw: object, where: str, prefix: str = "") -> Recipe:
    """Check a raw mapping against the schema, with all its stages.

    Args:
        raw: What a YAML file holds.
        where: Names the recipe in messages.
        prefix: Stands before the keys in messages, such as `stages.seg.`.

    Raises:
        RecipeError: One line per fault: where, key, what is wrong, and a hint.
    """
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{where}: a recipe is a mapping of sections, got {type(raw).__name__}")
    kind = recipe_type(raw, where, prefix)
    values = dict(raw)
    if isinstance(raw.get("earlier"), Mapping):  # each is checked by its own plug-ins
        values["earlier"] = {
            name: parse_recipe(part, where, f"{prefix}earlier.{name}.")
            for name, part in raw["earlier"].items()
        }
    try:
        recipe = kind.model_validate(values)
    except ValidationError as error:
        lines = fault_lines(error, kind, where, prefix)
        raise RecipeError("\n".join(lines)) from error
    _check_stages(recipe, where)
    return recipe


def stage_recipe(recipe: Recipe, name: str, where: str = "recipe") -> Recipe:
    """Turn one stage of a multi-stage recipe into a recipe of its own.

    A train stage changes the recipe's sections; a stage that labels or evaluates those of the stage
    in its `from`. What earlier stages leave is still to be filled in.

    Args:
        recipe: Has stages.
        name: One of them.
        where: Names the recipe in messages.

    Raises:
        RecipeError: One line per fault.
    """
    stage = recipe.stages[name]
    base = recipe if stage.run == "train" else stage_recipe(recipe, stage.from_[0], where)
    values = base.plain()
    values.pop("stages", None)
    return parse_recipe(overlaid(values, stage), where, f"stages.{name}.")


def read_yaml(path: Path) -> object:
    """Read one YAML file.

    Raises:
        RecipeError: If the file is missing or is no YAML, with the line of the fault.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", error)
        raise RecipeError(f"{path}:{line} is no readable YAML ({problem})") from error


def available_recipes() -> list[str]:
    """Names of the recipes that come with the package, such as `rml/scenes_tiny`."""
    return sorted(
        path.relative_to(RECIPE_FOLDER).with_suffix("").as_posix()
        for path in RECIPE_FOLDER.rglob("*.yaml")
    )


def recipe_path(name: str) -> Path:
    """Find a recipe by file path or by the name of one that comes with the package.

    Raises:
        RecipeError: If there is neither, with the nearest name.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    bundled = RECIPE_FOLDER / f"{name}.yaml"
    if bundled.is_file():
        return bundled
    known = available_recipes()
    raise RecipeError(
        f"unknown recipe '{name}'.{did_you_mean(name, known)} "
        "'tag2mask list recipes' shows all; your own recipe ends in .yaml"
    )


def load_recipe(name: str) -> Recipe:
    """Load and check a recipe by file path or bundled name."""
    path = recipe_path(name)
    return parse_recipe(read_yaml(path), str(path))


def _check_stages(recipe: Recipe, where: str) -> None:
    """Raise a RecipeError for stages that contradict each other or cannot be resolved."""
    faults = [f"{where}: {fault}" for fault in stage_faults(recipe.stages)]
    for name in () if faults else recipe.stages:
        try:
            stage_recipe(recipe, name, where)
        except RecipeError as error:
            faults += str(error).splitlines()
    if faults:
        raise RecipeError("\n".join(dict.fromkeys(faults)))  # a stage's faults also reach others
