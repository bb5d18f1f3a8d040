import pytest
from pydantic import BaseModel, Field, ValidationError

from tag2mask.config.messages import validation_errors


class Leaf(BaseModel, extra="forbid"):
    depth: int = 0
    under: int = Field(default=0, alias="over")


class Tree(BaseModel, extra="forbid"):
    leaf: Leaf = Leaf()
    leaves: dict[str, Leaf] = {}
    height: int


def told(raw):
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate(raw)
    return list(validation_errors(caught.value, Tree, "file", "a."))


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({}, "file: a.height: is missing"),
        ({"height": "x"}, "file: a.height: Input should be a valid integer, unable to parse"),
        ({"height": 1, "heigt": 2}, "file: unknown key 'a.heigt'. Did you mean 'height'? Known: "),
        (
            {"height": 1, "leaf": {"deph": 2}},
            "file: unknown key 'a.leaf.deph'. Did you mean 'depth'? Known: depth, over",
        ),
        (
            {"height": 1, "leaves": {"oak": {"under": 2}}},
            "file: unknown key 'a.leaves.oak.under'. Known: depth, over",
        ),
    ],
)
def test_a_problem_is_one_line_with_the_keys_that_are_known_there(raw, line):
    (only,) = told(raw)
    assert only.startswith(line)


def test_every_problem_has_its_line():
    assert len(told({"leaf": {"depth": "x"}, "leaves": {"oak": {"over": "y"}}})) == 3
