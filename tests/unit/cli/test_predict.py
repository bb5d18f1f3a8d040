import pytest

from tag2mask.cli import predict
from tag2mask.errors import RecipeError, Tag2MaskError


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("R --out O", Tag2MaskError, "give at least one image or folder"),
        ("R a.jpg", Tag2MaskError, "--out"),
        ("R a.jpg --out O --optim.lr 1", RecipeError, "is settled when training"),
        ("R a.jpg --out O --tags cat", Tag2MaskError, "--tags"),
    ],
)
def test_wrong_lines_are_rejected_before_a_network_is_loaded(line, kind, words):
    with pytest.raises(kind, match=words):
        predict.run(line.split())
