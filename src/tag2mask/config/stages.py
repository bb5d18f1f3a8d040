"""Stages of a multi-stage recipe: what each does, what it needs, which sections it changes.

Shapes and rules only: `recipe.stage_recipe` turns a stage into a recipe of its own, `pipeline` runs
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tag2mask.errors import did_you_mean

SECTIONS = ("data", "backbone", "method", "refiner", "optim", "predict")
"""Sections that a stage may change; `run` of the recipe holds for all stages."""
MAY_CHANGE: Mapping[str, tuple[str, ...]] = {
    "train": SECTIONS,
    "label": ("data", "method", "refiner", "predict"),
    "evaluate": ("data", "predict"),
}
"""What a stage does -> sections that it may change."""
MAY_USE = {"train": ("train",), "label": ("train",), "evaluate": ("label", "train")}
"""What a stage does -> what the stages in its `from` may do."""
RESERVED = ("weights", "state", "samples", "tensorboard")
"""Folders of a run that a stage's folder must not be mistaken for."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")

Section = dict[str, Any]
Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda one: (one,) if isinstance(one, str) else one)
]


class StageConfig(BaseModel):
    """One stage: what it does, with what, and what it changes of the recipe's sections.

    A section with another `name` takes the place of the recipe's; otherwise its keys are laid over
    it. A `label` or `evaluate` stage begins with the sections of the stage in its `from`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    run: Literal["train", "label", "evaluate"]
    """train: a network; label: write masks of the training images, their tags given; evaluate:
    score the masks of a label stage, or a trained network on the held-out images."""
    from_: Names = Field(default=(), alias="from")
    """Earlier stages whose networks this one goes on from; to evaluate: whose result is scored."""
    labels: str | None = None
    """Earlier label stage whose masks this train stage learns from."""
    data: Section = {}
    """Changes of the section `data`."""
    backbone: Section = {}
    """Changes of the section `backbone`."""
    method: Section = {}
    """Changes of the section `method`."""
    refiner: Section | None = {}
    """Changes of the section `refiner`; none: without refiner."""
    optim: Section = {}
    """Changes of the section `optim`."""
    predict: Section = {}
    """Changes of the section `predict`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the stages that must be whole before this one."""
        return (*self.from_, *((self.labels,) if self.labels is not None else ()))


def overlay_stage(base: Mapping[str, Any], stage: StageConfig) -> dict[str, Any]:
    """Lay a stage's sections over those of a recipe, as plain values; `base` is not changed."""
    whole = dict(base)
    for section in SECTIONS:
        if section not in stage.model_fields_set:
            continue
        part, below = getattr(stage, section), base.get(section)
        if part is not None and below and part.get("name", below.get("name")) == below.get("name"):
            part = {**below, **part}
        whole[section] = part
    return whole


def stage_problems(stages: Mapping[str, StageConfig]) -> Iterator[str]:
    """Tell what contradicts itself, one line per fault: `stages.NAME.KEY: what is wrong`."""
    before: dict[str, StageConfig] = {}
    for name, stage in stages.items():
        if not _NAME.fullmatch(name) or name in RESERVED:
            yield (
                f"stages: '{name}' cannot be a stage's folder; use a-z, 0-9 and _, "
                f"and none of {', '.join(RESERVED)}"
            )
        yield from _own_problems(name, stage)
        for used in stage.from_:
            yield from _use_problems(
                f"stages.{name}.from", used, MAY_USE[stage.run], before, stages
            )
        if stage.run == "train" and stage.labels is not None:
            where = f"stages.{name}.labels"
            yield from _use_problems(where, stage.labels, ("label",), before, stages)
        before[name] = stage


def _own_problems(name: str, stage: StageConfig) -> Iterator[str]:
    """Faults that one stage has by itself."""
    if stage.run != "train":
        used = "train" if stage.run == "label" else "label or train"
        if not stage.from_:
            yield f"stages.{name}.from: is missing: the {used} stage to {stage.run} with"
        elif len(stage.from_) > 1:
            named = ", ".join(stage.from_)
            yield f"stages.{name}.from: a stage that {stage.run}s takes one stage, got {named}"
        if stage.labels is not None:
            yield f"stages.{name}.labels: only a train stage learns from labels"
    allowed = MAY_CHANGE[stage.run]
    for section in SECTIONS:
        if section in stage.model_fields_set and section not in allowed:
            yield (
                f"stages.{name}.{section}: a stage that {stage.run}s may change "
                f"{', '.join(allowed)} only"
            )


def _use_problems(
    where: str,
    used: str,
    kinds: tuple[str, ...],
    before: Mapping[str, StageConfig],
    stages: Mapping[str, StageConfig],
) -> Iterator[str]:
    """Faults of one stage's mention of another."""
    if used not in stages:
        known = ", ".join(stages)
        yield f"{where}: unknown stage '{used}'.{did_you_mean(used, stages)} Known: {known}"
    elif used not in before:
        yield f"{where}: '{used}' does not stand before it; a stage follows those it uses"
    elif before[used].run not in kinds:
        yield (
            f"{where}: '{used}' is a stage that {before[used].run}s, "
            f"but one that {' or '.join(f'{kind}s' for kind in kinds)} is needed"
        )
