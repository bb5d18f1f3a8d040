import pytest
from pydantic import BaseModel, Field, ValidationError

from tag2mask.config.messages import validation_errors


class Leaf(BaseModel, extra="forbid"):
    depth: int = 0
    under: int = Field(default=0, alias="over")


class Tree(BaseModel, extra="forbid"):
    leaf: Leaf = Leaf()
    leaves: dict[str, Leaf] = {}
    bud: Leaf | None = None
    height: int


def messages(raw):
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
            {"height": 1, "bud": {"deph": 2}},
            "file: unknown key 'a.bud.deph'. Did you mean 'depth'? Known: depth, over",
        ),
        (
            {"height": 1, "leaves": {"oak": {"under": 2}}},
            "file: unknown key 'a.leaves.oak.under'. Known: depth, over",
        ),
    ],
)
def test_each_problem_is_one_line_with_the_known_keys(raw, line):
    (only,) = messages(raw)
    assert only.startswith(line)


def test_every_problem_is_reported():
    assert len(messages({"leaf": {"depth": "x"}, "leaves": {"oak": {"over": "y"}}})) == 3
