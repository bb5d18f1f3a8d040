"""Every number of a recipe is finite, and every size and count has a largest value."""

import math
import typing
from collections.abc import Iterator
from typing import Annotated

import annotated_types
import pytest
from pydantic import BaseModel, ValidationError

from tag2mask import plugins
from tag2mask.config.recipe import PLUGIN_SECTIONS
from tag2mask.config.schema import OptimConfig, PredictConfig, RunConfig
from tag2mask.config.stages import StageConfig

CONFIGS = [OptimConfig, PredictConfig, RunConfig, StageConfig]
for folder in PLUGIN_SECTIONS.values():
    CONFIGS += [plugins.load(folder, name).Config for name in plugins.available(folder)]
CONFIGS = list(dict.fromkeys(CONFIGS))


def parts(annotation: object, metadata: tuple[object, ...] = ()) -> Iterator[tuple[object, tuple]]:
    """Yield each plain type in an annotation with the constraints on it."""
    if typing.get_origin(annotation) is Annotated:
        inner, *more = typing.get_args(annotation)
        yield from parts(inner, (*metadata, *more))
    elif typing.get_args(annotation):
        for inner in typing.get_args(annotation):
            yield from parts(inner, metadata)
    else:
        yield annotation, metadata


def has_largest(metadata: tuple[object, ...]) -> bool:
    flat = [one for item in metadata for one in (getattr(item, "metadata", None) or [item])]
    return any(isinstance(one, annotated_types.Le | annotated_types.Lt) for one in flat)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_whole_number_has_a_largest_value(config: type[BaseModel]) -> None:
    for name, field in config.model_fields.items():
        for kind, metadata in parts(field.annotation, tuple(field.metadata)):
            if kind is int:
                assert has_largest(metadata), f"{config.__name__}.{name}"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_may_be_infinite(config: type[BaseModel], value: float) -> None:
    for name, field in config.model_fields.items():
        kinds = {kind for kind, _ in parts(field.annotation)}
        if float not in kinds:
            continue
        for given in (value, [value]):
            with pytest.raises(ValidationError) as caught:
                config.model_validate({name: given})
            problems = [problem["loc"][0] for problem in caught.value.errors()]
            assert (field.alias or name) in problems, f"{config.__name__}.{name}"
