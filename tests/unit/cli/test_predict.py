import pytest

from tag2mask.cli.main import run
from tag2mask.errors import RecipeError, Tag2MaskError


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("R --out O", Tag2MaskError, "missing argument 'IMAGE'"),
        ("R a.jpg", Tag2MaskError, "missing option '--out'"),
        ("R a.jpg --out O optim.lr=1", RecipeError, "is fixed by training"),
        ("R a.jpg --out O --tags cat", Tag2MaskError, "unknown option '--tags'"),
    ],
)
def test_wrong_lines_are_rejected_before_a_network_is_loaded(line, kind, words):
    with pytest.raises(kind, match=words):
        run(["predict", *line.split()])
