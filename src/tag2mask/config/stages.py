"""Describe the stages of a recipe: what each does, what it needs, which sections it may change.

`recipe.stage_recipe` turns a stage into a recipe of its own, and `pipeline` runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tag2mask.config.keys import annotation_at, fields_by_key
from tag2mask.errors import did_you_mean
from tag2mask.types import ClassSource

SECTIONS = ("data", "backbone", "method", "refiner", "optim", "predict")
"""Sections that a stage may change; all stages share the section `run`."""
MAY_CHANGE: Mapping[str, tuple[str, ...]] = {
    "train": SECTIONS,
    "label": ("data", "backbone", "method", "refiner", "predict"),
    "evaluate": ("data", "backbone", "predict"),
}
"""Kind of stage -> sections that it may change."""
MAY_USE = {"train": ("train", "label"), "label": ("train",), "evaluate": ("label", "train")}
"""Kind of stage -> kinds that its `from` may name."""
RESERVED = ("weights", "state", "samples", "tensorboard")
"""Folders of a run, whose names no stage may have."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")

Section = dict[str, Any]
Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda one: (one,) if isinstance(one, str) else one)
]


class StageConfig(BaseModel):
    """One stage: what it does, what it uses, and its changes to the recipe's sections.

    A section with another `name` replaces the recipe's section; otherwise its keys override those
    of the recipe. A `label` or `evaluate` stage starts from the sections of its `from` stage.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    run: Literal["train", "label", "evaluate"]
    """train: train a network; label: write masks of the training images, with classes from their
    tags; evaluate: score the masks of a label stage, or a trained network on held-out images."""
    from_: Names = Field(default=(), alias="from")
    """Earlier stages whose networks this stage starts from; a label stage stands for its network as
    it labels, with advcam or rib for example. For evaluate: the stage to score."""
    class_source: ClassSource | None = None
    """Who chooses the classes when an evaluate stage scores a trained network; none: classifier."""
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(default=(), max_length=1000)
    """Background scores that an evaluate stage compares on the maps of a trained network, without
    refining them; the best is reported. Empty: the masks as `predict` describes them."""
    thresholds_from: str | None = None
    """`data.val_split` of other images that the best of `thresholds` is chosen on; none: the scored
    images themselves, as papers do for class maps of the training images."""
    labels: str | None = None
    """Earlier label stage whose masks this train stage learns from; none: the data's own labels."""
    data: Section = {}
    """Changes of the section `data`."""
    backbone: Section = {}
    """Changes of the section `backbone`."""
    method: Section = {}
    """Changes of the section `method`."""
    refiner: Section | None = {}
    """Changes of the section `refiner`; none: no refiner."""
    optim: Section = {}
    """Changes of the section `optim`."""
    predict: Section = {}
    """Changes of the section `predict`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the stages that must be finished before this one starts."""
        return (*self.from_, *((self.labels,) if self.labels is not None else ()))


def apply_stage(
    base: Mapping[str, Any], stage: StageConfig, kind: type[BaseModel]
) -> dict[str, Any]:
    """Return the sections of a recipe with a stage's changes, as plain values.

    Args:
        base: Sections of the recipe; not modified.
        stage: Only the sections that it sets matter.
        kind: Model of the recipe; it says which keys are sections.
    """
    sections = dict(base)
    for section in SECTIONS:
        if section in stage.model_fields_set:
            annotation = annotation_at(kind, [section])
            sections[section] = _override(base.get(section), getattr(stage, section), annotation)
    return sections


def stage_problems(stages: Mapping[str, StageConfig]) -> Iterator[str]:
    """Yield what contradicts itself, one line per problem: `stages.NAME.KEY: what is wrong`."""
    earlier: dict[str, StageConfig] = {}
    for name, stage in stages.items():
        if not _NAME.fullmatch(name) or name in RESERVED:
            yield (
                f"stages: '{name}' cannot be the name of a stage's folder; use a-z, 0-9 and _, "
                f"and none of {', '.join(RESERVED)}"
            )
        yield from _own_problems(name, stage)
        for used in stage.from_:
            where = f"stages.{name}.from"
            yield from _reference_problems(where, used, MAY_USE[stage.run], earlier, stages)
        if stage.run == "train" and stage.labels is not None:
            where = f"stages.{name}.labels"
            yield from _reference_problems(where, stage.labels, ("label",), earlier, stages)
        yield from _evaluation_problems(name, stage, earlier)
        earlier[name] = stage


def _override(base: Any, change: Any, annotation: object) -> Any:
    """Override the keys of a section; replace plain values and sections of another `name`."""
    fields = fields_by_key(annotation)
    if not (fields and isinstance(base, Mapping) and isinstance(change, Mapping)):
        return change
    if change.get("name", base.get("name")) != base.get("name"):
        return change
    changed = {
        key: _override(base.get(key), value, fields[key].annotation if key in fields else None)
        for key, value in change.items()
    }
    return {**base, **changed}


def _own_problems(name: str, stage: StageConfig) -> Iterator[str]:
    """Yield the problems of one stage that do not depend on other stages."""
    if stage.run != "train":
        kinds = " or ".join(MAY_USE[stage.run])
        if not stage.from_:
            yield f"stages.{name}.from: is missing: the {kinds} stage to {stage.run} with"
        elif len(stage.from_) > 1:
            names = ", ".join(stage.from_)
            yield f"stages.{name}.from: a {stage.run} stage takes one stage, got {names}"
        if stage.labels is not None:
            yield f"stages.{name}.labels: only a train stage learns from labels"
    allowed = MAY_CHANGE[stage.run]
    for section in SECTIONS:
        if section in stage.model_fields_set and section not in allowed:
            yield (
                f"stages.{name}.{section}: a {stage.run} stage may only change {', '.join(allowed)}"
            )


def _evaluation_problems(
    name: str, stage: StageConfig, earlier: Mapping[str, StageConfig]
) -> Iterator[str]:
    """Yield the problems of the keys that belong to evaluate stages of a network."""
    scores_masks = any(earlier[used].run == "label" for used in stage.from_ if used in earlier)
    for key in ("class_source", "thresholds", "thresholds_from"):
        if key not in stage.model_fields_set:
            continue
        if stage.run != "evaluate":
            yield f"stages.{name}.{key}: only an evaluate stage has it"
        elif scores_masks:
            yield (
                f"stages.{name}.{key}: the masks of a label stage are finished; name a train stage "
                "in 'from'"
            )
    if stage.thresholds_from is not None and not stage.thresholds:
        yield f"stages.{name}.thresholds_from: needs stages.{name}.thresholds to choose from"


def _reference_problems(
    where: str,
    used: str,
    kinds: tuple[str, ...],
    earlier: Mapping[str, StageConfig],
    stages: Mapping[str, StageConfig],
) -> Iterator[str]:
    """Yield the problems of one stage's reference to another."""
    if used not in stages:
        hint, known = did_you_mean(used, stages), ", ".join(stages)
        yield f"{where}: unknown stage '{used}'.{hint} Known: {known}"
    elif used not in earlier:
        yield f"{where}: stage '{used}' must come before the stage that uses it"
    elif earlier[used].run not in kinds:
        yield (
            f"{where}: '{used}' is a {earlier[used].run} stage; "
            f"a {' or '.join(kinds)} stage is needed"
        )
