from typing import Annotated

import pytest
from pydantic import BaseModel, Field, PositiveFloat

from tag2mask.config.keys import (
    annotation_at,
    dotted_keys,
    fields_by_key,
    known_keys,
    section_model,
    union_members,
)


class Leaf(BaseModel):
    depth: int = 0
    under: int = Field(default=0, alias="over")


class Tree(BaseModel):
    leaf: Leaf = Leaf()
    bud: Leaf | None = None
    leaves: dict[str, Leaf] = {}
    sizes: tuple[PositiveFloat, ...] | None = None


@pytest.mark.parametrize(
    ("path", "annotation"),
    [
        ([], Tree),
        (["leaf"], Leaf),
        (["leaf", "depth"], int),
        (["bud", "depth"], int),
        (["leaves", "oak", "over"], int),
        (["leaf", "under"], None),
        (["leaf", "depth", "more"], None),
        (["gone"], None),
    ],
)
def test_path_leads_to_a_type(path, annotation):
    assert annotation_at(Tree, path) is annotation


def test_keys_are_those_that_a_person_types():
    assert known_keys(Tree, ["bud"]) == ["depth", "over"]
    assert known_keys(Tree, ["sizes"]) == []
    assert list(dotted_keys(Leaf)) == ["depth", "over"]
    expected = ["leaf.depth", "leaf.over", "bud.depth", "bud.over", "leaves", "sizes"]
    assert list(dotted_keys(Tree)) == expected
    assert list(fields_by_key(int)) == []


def test_union_is_opened_without_constraints():
    assert union_members(Annotated[int | None, Field(ge=0)]) == (int, type(None))
    assert union_members(PositiveFloat | None) == (float, type(None))
    assert union_members(str) == (str,)


def test_optional_section_is_a_section():
    assert section_model(Leaf | None) is Leaf
    assert section_model(int | None) is None
