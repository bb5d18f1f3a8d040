from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, PositiveFloat

from tag2mask import plugins
from tag2mask.config.keys import fields_by_key
from tag2mask.config.listing import RecipeKey, describe_type, format_value, list_sections
from tag2mask.config.overrides import apply_overrides, parse_overrides
from tag2mask.config.recipe import PLUGIN_SECTIONS, available_recipes, load_recipe, stage_recipe
from tag2mask.config.schema import Fraction


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "integer"),
        (bool, "true or false"),
        (str | None, "text or none"),
        (Path, "path"),
        (Fraction, "number, >= 0, <= 1"),
        (Annotated[int, Field(ge=32, multiple_of=32)], "integer, >= 32, multiple of 32"),
        (PositiveFloat | None, "number, > 0, or none"),
        (Literal["gap", "gmp"], "one of gap, gmp"),
        (Literal[8, 16], "one of 8, 16"),
        (tuple[PositiveFloat, ...], "list: number, > 0"),
        (Annotated[tuple[int, ...], Field(min_length=1)], "list, not empty: integer"),
        (tuple[float, float], "2 items: number"),
        (str | dict[str, int] | None, "text or none"),
    ],
)
def test_type_and_range_are_described(annotation, text):
    class Section(BaseModel):
        key: annotation

    field = Section.model_fields["key"]
    assert describe_type(field.annotation, field.metadata) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (True, "true"), (6e-5, "6e-05"), ((1.0, 0.5), "1.0,0.5"), ((), "")],
)
def test_value_is_written_as_on_the_command_line(value, text):
    assert format_value(value) == text


@pytest.mark.parametrize("name", available_recipes())
def test_listed_keys_set_the_same_recipe(name):
    recipe = load_recipe(name)
    keys = [key for _, keys in list_sections(recipe) for key in keys]
    words = [str(key) for key in keys if key.value is not None]
    raw = {
        section: {"name": part["name"]}
        for section, part in recipe.plain().items()
        if section in PLUGIN_SECTIONS and part
    }
    raw["stages"] = recipe.plain().get("stages", {})
    again = apply_overrides(raw, parse_overrides(words), "again")
    same = {"exclude": {"stages"}}
    assert again.model_dump(**same) == recipe.model_dump(**same)
    for stage in recipe.stages:
        assert stage_recipe(again, stage).model_dump() == stage_recipe(recipe, stage).model_dump()
    names = {key.name for key in keys}
    assert {"optim.lr", "predict.scales", "run.seed", "method.name", "backbone.weights"} <= names
    assert all(key.help for key in keys if not key.name.startswith("stages."))


def test_missing_refiner_is_listed_with_its_choices():
    recipe = apply_overrides(
        load_recipe("cam/synthetic_tiny").plain(), {"refiner.name": "none"}, "r"
    )
    (key,) = dict(list_sections(recipe))["refiner"]
    assert str(key) == "refiner=none"
    assert key.type == f"one of {', '.join(plugins.available('refiners'))}"


def test_key_of_an_absent_section_has_no_value():
    assert str(RecipeKey("predict.confident.name", None, "text", "")) == "predict.confident.name"


@pytest.mark.parametrize("section", PLUGIN_SECTIONS)
def test_every_key_of_every_plugin_has_a_type_and_help(section):
    folder = PLUGIN_SECTIONS[section]
    for name in plugins.available(folder):
        for key, field in fields_by_key(plugins.load(folder, name).Config).items():
            assert describe_type(field.annotation, field.metadata), (name, key)
